"""Does a search find which pairs to memorize? Made-up clicks whose pairs are known.

    python -m tests.benchmarks.optinter [--seeds 0 1 2] [--json FILE]

Six fields of 20, 20, 20, 300, 300, 300 values, 160,000 training and 40,000 test rows. The three pairs of small fields
have an effect for each combination (to memorize), the three of large ones an effect of rank 2 (to factorize), the
nine between nothing. Searched with α taught by a held-out quarter of every batch, the same rows in every epoch, and by
the rows that everything else learns from.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import chz
import numpy as np

from data.features import FIRST, Categorical, Features, Label
from modules.ctr.optinter import OptInter, assignment_of, pairs_of
from modules.layers.crosses import lay_out
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.benchmarks.toy import Toy, auc
from train.held_out import HeldOut
from train.optim import Optimizer

SIZES = {"a": 20, "b": 20, "c": 20, "u": 300, "v": 300, "w": 300}
FEATURES = Features(all=(*(Categorical(name=n, rows=FIRST + v) for n, v in SIZES.items()), Label(name="click")))
PAIRS = pairs_of(FEATURES)
SMALL, LARGE = (tuple(itertools.combinations(names, 2)) for names in ("abc", "uvw"))
TRUTH = {f"{p[0]} x {p[1]}": "memorize" if p in SMALL else "factorize" if p in LARGE else "naive" for p in PAIRS}
ROWS, TRAIN, EPOCHS, BATCH = 200_000, 160_000, 4, 1000
MODEL = OptInter(
    dim=4,
    cross_dim=4,
    cross_rows=1 << 17,
    cross_std=0.05,
    embedding=Embedding(std=0.05),
    mlp=MLP(widths=(64,), norm="layer"),
    l2=1e-3,
    cooling=1.0 / (EPOCHS * TRAIN // BATCH),
)


def data(seed: int) -> tuple[dict, dict, float]:
    rng = np.random.default_rng([seed, 3])
    ids = {name: rng.integers(0, count, ROWS) for name, count in SIZES.items()}
    logit = np.zeros(ROWS)
    for left, right in SMALL:
        logit += rng.normal(size=(20, 20))[ids[left], ids[right]]
    for left, right in LARGE:
        u, v = rng.normal(size=(2, 300, 2))
        logit += 0.8 * (u[ids[left]] * v[ids[right]]).sum(-1)
    truth = 1 / (1 + np.exp(-logit))
    columns = {n: (FIRST + x).astype(np.int32) for n, x in ids.items()}
    columns["click"] = (rng.random(ROWS) < truth).astype(np.float32)
    best = auc(columns["click"][TRAIN:], score=truth[TRAIN:])
    return {n: c[:TRAIN] for n, c in columns.items()}, {n: c[TRAIN:] for n, c in columns.items()}, best


def run(model: OptInter, *, seed: int, held_out: HeldOut | None = None) -> tuple[float, dict[str, np.ndarray]]:
    searches = model.choice == "search" and model.assignment is None
    optimizer = Optimizer(lr=2e-3, lr_scale=((r"^alpha$", 10.0),) if searches else ())
    toy = Toy(
        model, features=FEATURES, optimizer=optimizer, epochs=EPOCHS, batch=BATCH, rows=TRAIN,
        shuffle=held_out is None, held_out=held_out,
    )  # fmt: skip
    train, test, _ = data(seed)
    predictions, params = toy.fit(train, test=test, seed=seed)
    return auc(test["click"], score=predictions["score"]), params


def cross_rows(chosen: dict[str, str]) -> int:
    memorized = tuple(p for p in PAIRS if chosen[f"{p[0]} x {p[1]}"] == "memorize")
    return sum(c.rows for c in lay_out(memorized, features=FEATURES, rows=MODEL.cross_rows))


def measure(seed: int, *, folder: Path) -> dict:
    """AUC, cross rows and pairs chosen as they are, of every way."""
    found: dict[str, dict] = {"possible": {"auc": data(seed)[2]}}
    for choice in ("naive", "factorize", "memorize"):
        score, _ = run(chz.replace(MODEL, choice=choice), seed=seed)
        found[f"all {choice}"] = {"auc": score, "cross_rows": cross_rows(dict.fromkeys(TRUTH, choice))}

    def assigned(name: str, chosen: dict[str, str]) -> None:
        path = folder / f"{name.replace(' ', '_')}-{seed}.json"
        path.write_text(json.dumps({"pairs": chosen}))
        score, _ = run(chz.replace(MODEL, assignment=str(path)), seed=seed)
        memorized = {n for n, m in chosen.items() if m == "memorize"}
        found[name] = {
            "auc": score,
            "cross_rows": cross_rows(chosen),
            "right": sum(chosen[n] == TRUTH[n] for n in TRUTH),
            "memorized": len(memorized),
            "memorized_right": len(memorized & {n for n, m in TRUTH.items() if m == "memorize"}),
        }

    assigned("true methods", TRUTH)
    for name, held in (("searched, held-out rows", HeldOut(params=r"^alpha$")), ("searched, training rows", None)):
        _, params = run(MODEL, seed=seed, held_out=held)
        assigned(name, dict(assignment_of(params["alpha"], pairs=PAIRS)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            results.append(measure(seed, folder=Path(folder)))
            print(seed, json.dumps(results[-1]), file=sys.stderr, flush=True)
    print("| interactions | AUC | cross rows | memorized (of them right) | of 15 pairs as they are |")
    print("|---|---|---|---|---|")
    for name in results[0]:
        mean = {k: statistics.mean(r[name][k] for r in results) for k in results[0][name]}
        kept = f"{mean['memorized']:.1f} ({mean['memorized_right']:.1f})" if "memorized" in mean else ""
        right = f"{mean['right']:.1f}" if "right" in mean else ""
        print(f"| {name} | {mean['auc']:.4f} | {mean.get('cross_rows', 0):,.0f} | {kept} | {right} |")
    if args.json:
        args.json.write_text(json.dumps({"seeds": args.seeds, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
