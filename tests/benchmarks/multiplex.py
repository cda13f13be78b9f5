"""One table for all features against a hashed table for each, at equal memory.

    python -m tests.benchmarks.multiplex [--seeds 0 1 2] [--json FILE]

Six Zipf features with vocabularies of 4000 to 5 values, 200,000 rows, clicks with first-order effects and three planted
pairs. Budgets are rows of all tables together: 39, 13 and 4 percent of the vocabulary. `proportional` shares a budget
out by vocabulary (at least 2 rows each), `even` gives each feature the same rows, but none more than it has values.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

from data.features import FIRST, Categorical, Features, Label
from modules.ctr.dcnv2 import DCNv2
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from modules.layers.multiplex import Multiplex
from tests.benchmarks.toy import Toy, auc
from train.optim import Optimizer

VOCABULARY = {"a": 4000, "b": 3000, "c": 500, "d": 100, "e": 20, "f": 5}
PAIRS = (("a", "c"), ("b", "d"), ("a", "e"))
BUDGETS = (3000, 1000, 300)
ROWS, WIDTH, STD = 200_000, 12, 0.03
FEATURES = Features(all=(*(Categorical(name=n, rows=FIRST + v) for n, v in VOCABULARY.items()), Label(name="click")))


def data(seed: int) -> tuple[dict, dict, float]:
    """Columns of 160,000 training and 40,000 test rows, and the best possible AUC on the latter."""
    rng = np.random.default_rng([seed, 4])
    ids, logit = {}, np.full(ROWS, -0.6)
    for name, count in VOCABULARY.items():
        p = np.arange(1, count + 1) ** -0.9
        ids[name] = rng.permutation(count)[rng.choice(count, ROWS, p=p / p.sum())]
        logit += 0.3 * rng.normal(size=count)[ids[name]]
    for left, right in PAIRS:
        u, v = (rng.normal(size=(VOCABULARY[n], 2)) for n in (left, right))
        logit += 0.42 * (u[ids[left]] * v[ids[right]]).sum(-1)
    truth = 1 / (1 + np.exp(-logit))
    columns = {n: (FIRST + x).astype(np.int32) for n, x in ids.items()}
    columns["click"] = (rng.random(ROWS) < truth).astype(np.float32)
    cut = ROWS * 4 // 5
    best = auc(columns["click"][cut:], score=truth[cut:])
    return {n: c[:cut] for n, c in columns.items()}, {n: c[cut:] for n, c in columns.items()}, best


def shares(budget: int, *, how: str) -> dict[str, int]:
    """Rows of each feature's own table, the reserved ones added."""
    if how == "proportional":
        total = sum(VOCABULARY.values())
        return {n: FIRST + max(2, round(budget * v / total)) for n, v in VOCABULARY.items()}
    out, left = {}, budget
    for place, (name, count) in enumerate(sorted(VOCABULARY.items(), key=lambda item: item[1])):
        out[name] = min(count, left // (len(VOCABULARY) - place))
        left -= out[name]
    return {n: FIRST + rows for n, rows in out.items()}


def variants(budget: int) -> dict[str, Embedding]:
    one = {salt: Multiplex(rows=FIRST + budget, salt=salt) for salt in ("feature", "none")}
    return {
        "proportional": Embedding(std=STD, hash_buckets=shares(budget, how="proportional")),
        "even": Embedding(std=STD, hash_buckets=shares(budget, how="even")),
        "multiplexed": Embedding(std=STD, multiplex=one["feature"]),
        "one salt": Embedding(std=STD, multiplex=one["none"]),
    }


def measure(embedding: Embedding, *, seeds: list[int], epochs: int) -> list[float]:
    model = DCNv2(dim=WIDTH, depth=1, mlp=MLP(widths=(96, 96)), embedding=embedding)
    toy = Toy(model, features=FEATURES, optimizer=Optimizer(lr=2e-3), epochs=epochs, batch=1000, rows=ROWS * 4 // 5)
    found = []
    for seed in seeds:
        train, test, _ = data(seed)
        predictions, _ = toy.fit(train, test=test, seed=seed)
        found.append(auc(test["click"], score=predictions["score"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cells: dict[str, Embedding] = {"collisionless": Embedding(std=STD)}
    cells |= {f"{name} {b}": e for b in BUDGETS for name, e in variants(b).items()}
    results: dict[str, list[float]] = {"possible": [data(s)[2] for s in args.seeds]}
    for name, embedding in cells.items():
        results[name] = measure(embedding, seeds=args.seeds, epochs=args.epochs)
        print(name, [round(x, 4) for x in results[name]], file=sys.stderr, flush=True)
    mean = {name: statistics.mean(found) for name, found in results.items()}
    print(f"possible {mean['possible']:.4f}, without collisions {mean['collisionless']:.4f}\n")
    print("| rows | proportional | even | multiplexed | one salt | gain over proportional | over even |")
    print("|---|---|---|---|---|---|---|")
    for b in BUDGETS:
        own, even, shared, salt = (mean[f"{n} {b}"] for n in variants(b))
        print(
            f"| {b} | {own:.4f} | {even:.4f} | {shared:.4f} | {salt:.4f} | {shared - own:+.4f} | {shared - even:+.4f} |"
        )
    if args.json:
        args.json.write_text(json.dumps({"seeds": args.seeds, "auc": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
