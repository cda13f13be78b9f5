"""Planted items on which masked views should help what few clicked (spec of Yao et al., CIKM 2021); three seeds.

    python -m tests.benchmarks.ssl_toy [--seeds 0 1 2] [--steps 1500] [--only none correlated] [--json FILE]

5,000 items: an id and four attributes, each told by two fields of which the second repeats the first nine times in ten.
500 users like attributes by a form of rank 4; an item is shown by Zipf popularity and clicked by softmax of its
attributes' worth, 20,000 training pairs; test pairs are drawn without popularity. Recall is of 50 among all items; the
tail is the half that training shows less. "at" is the first step at which nine views of ten, or 95 of 100, know their
own other view, by the mean of the last 20 steps; None: never.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import chz
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from data.features import FIRST, Categorical, Features, Truth
from data.pipeline import Loader
from data.sources import InMemory, SourceConfig
from data.transforms.masked_views import MaskedViews
from modules.layers.mlp import MLP
from modules.retrieval.ssl_two_tower import SSLTwoTower
from train.metrics.ranks import rank_blocks
from train.tasks.self_supervised import SelfSupervised

ITEMS, USERS, VALUES, ATTRIBUTES, PAIRS, TEST = 5_000, 500, 25, 4, 20_000, 5_000
BATCH, DIM, TEMPERATURE = 512, 16, 0.1
FIELDS = tuple(f"{part}{a}" for a in range(ATTRIBUTES) for part in ("told", "again"))
VARIANTS = {
    "none": {"alpha": 0.0},
    "spread out": {"masking": "none"},
    "random": {"masking": "random"},
    "correlated": {},
    "correlated, from the log": {"drawn": "log"},
}


@chz.chz
class Planted(SourceConfig):
    """Rows of "items", of "train" or of "test"."""

    part: str
    seed: int = 0

    def make(self) -> InMemory:
        rng = np.random.default_rng(self.seed)
        told = rng.integers(0, VALUES, (ITEMS, ATTRIBUTES))
        again = np.where(rng.random(told.shape) < 0.9, told, rng.integers(0, VALUES, told.shape))
        taste = rng.normal(size=(USERS, 4))
        worth = rng.normal(size=(ATTRIBUTES, VALUES, 4)) / 2
        value = 2.5 * taste @ worth[np.arange(ATTRIBUTES), told].sum(axis=1).T / np.sqrt(ATTRIBUTES)
        popularity = np.log(1 / (1 + rng.permutation(ITEMS)))
        user = {"train": rng.integers(0, USERS, PAIRS), "test": rng.integers(0, USERS, TEST)}
        luck = {name: rng.random(len(users)) for name, users in user.items()}
        shown = {"train": value + popularity[None], "test": value}
        columns = {}
        if self.part == "items":
            item = np.arange(ITEMS)
        else:
            chance = np.exp(shown[self.part] - shown[self.part].max(axis=1, keepdims=True)).cumsum(axis=1)
            users = user[self.part]
            item = np.array(
                [np.searchsorted(chance[u], x * chance[u, -1]) for u, x in zip(users, luck[self.part], strict=True)]
            )
            columns["user"] = FIRST + users
            share = np.bincount(item, minlength=ITEMS) + 1.0
            columns["logq"] = np.log(share / share.sum())[item]
        columns["item"] = FIRST + item
        for a in range(ATTRIBUTES):
            columns |= {f"told{a}": FIRST + told[item, a], f"again{a}": FIRST + again[item, a]}
        features = [Categorical(name="item", role="item", rows=FIRST + ITEMS)]
        features += [Categorical(name=n, role="item", rows=FIRST + VALUES) for n in FIELDS]
        declared: tuple = tuple(features)
        if self.part != "items":
            declared += (Categorical(name="user", role="user", rows=FIRST + USERS), Truth(name="logq"))
        return InMemory(columns, features=Features(all=declared))


def measured(variant: dict, *, seed: int, steps: int) -> dict[str, float | None]:
    options = dict(variant)
    task = SelfSupervised(logq="logq", alpha=options.pop("alpha", 0.3), view_temperature=TEMPERATURE)
    source = Planted(part="train", seed=seed).make()
    views = MaskedViews(items=Planted(part="items", seed=seed), **options)
    batches = Loader(batch_size=BATCH, transforms=(views,), seed=seed).open(source)
    config = SSLTwoTower(dim=DIM, query=MLP(widths=()), item=MLP(widths=(64,)), temperature=TEMPERATURE)
    graph, state = nnx.split(config.make(batches.features, rngs=nnx.Rngs(seed)))
    tx = optax.adam(3e-3)

    @jax.jit
    def step(state, opt, batch):
        def loss(state):
            return task.loss(nnx.merge(graph, state)(batch), batch)

        (_, logs), grads = jax.value_and_grad(loss, has_aux=True)(state)
        updates, opt = tx.update(grads, opt, state)
        return optax.apply_updates(state, updates), opt, logs["self_accuracy"]

    opt, knew = tx.init(state), []
    for _, batch in zip(range(steps), batches, strict=False):
        state, opt, accuracy = step(state, opt, {n: jnp.asarray(a) for n, a in batch.items()})
        knew.append(accuracy)
    batches.close()
    encode = jax.jit(lambda state, rows: nnx.merge(graph, state)(rows))
    items = encode(state, Planted(part="items", seed=seed).make().columns)["item"]
    test = Planted(part="test", seed=seed).make().columns
    query = encode(state, {"user": test["user"]})["query"]
    wanted = test["item"][:, None] - FIRST
    blocks = rank_blocks(np.asarray(query), np.asarray(items), wanted, forbidden=None, k=1)
    found = np.concatenate([ranked.rank[:, 0] for _, ranked in blocks]) <= 50
    count = np.bincount(source.columns["item"] - FIRST, minlength=ITEMS)
    tail = (np.searchsorted(np.sort(count), count, side="left") < ITEMS / 2)[wanted[:, 0]]
    mean = np.convolve(np.asarray(jnp.stack(knew)), np.full(20, 1 / 20), mode="valid")
    at = {share: (int(np.argmax(mean > share)) + 20 if (mean > share).any() else None) for share in (0.9, 0.95)}
    return {
        "recall@50": float(found.mean()),
        "tail/recall@50": float(found[tail].mean()),
        "head/recall@50": float(found[~tail].mean()),
        "at 90 %": at[0.9],
        "at 95 %": at[0.95],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for name in args.only:
        results[name] = [measured(VARIANTS[name], seed=seed, steps=args.steps) for seed in args.seeds]
        shown = {n: statistics.mean(r[n] for r in results[name]) for n in results[name][0] if "recall" in n}
        print(name, {n: round(v, 4) for n, v in shown.items()}, [r["at 95 %"] for r in results[name]], flush=True)
        print(f"{name}: {len(args.seeds)} seeds", file=sys.stderr, flush=True)
    if args.json:
        args.json.write_text(
            json.dumps({"steps": args.steps, "seeds": args.seeds, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
