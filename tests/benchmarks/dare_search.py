"""How much faster is DARE's search when its attention tables are a quarter as wide? Histories of 1,024 behaviours.

    python -m tests.benchmarks.dare_search [--length N] [--rows N] [--candidates N] [--json FILE]

`search` is what the first stage does: rows of the attention tables are read, dotted with the target and the best 20
found. `forward` is the whole prediction. `rows` gives every row its own history; `request` is one user's history
before many candidates, where finding the best 20 of 1,024 costs the same for every width. Widths take turns, round by
round; medians of the processor time of all threads, which other work on the machine disturbs little.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from data.features import FIRST, Categorical, Features, Sequence
from modules.behavior.dare import DARE, top

ITEMS, CATEGORIES, KEEP, ROUNDS = 100_000, 1_000, 20, 15
WIDTHS = (16, 8, 4)


def features_of(length: int) -> Features:
    tables = {"item": FIRST + ITEMS, "category": FIRST + CATEGORIES}
    targets = [Categorical(name=n, role="item", rows=rows) for n, rows in tables.items()]
    histories = [
        Sequence(name=f"history_{n}", role="user", of=Categorical(name="h", rows=rows, share=n), length=length)
        for n, rows in tables.items()
    ]
    return Features(all=(*targets, *histories))


def batch_of(features: Features, *, users: int, candidates: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    batch = {}
    for f in features:
        count = users if f.role == "user" else candidates
        batch[f.name] = rng.integers(FIRST, f.size, (count, *f.shape), dtype=np.int32)
        if f.max_len:
            batch[f"{f.name}/length"] = np.full(count, f.max_len, np.int32)
    return jax.device_put(batch)


def stages(features: Features, *, width: int) -> dict[str, Callable]:
    config = DARE(attention_dim=width, keep=KEEP)
    graph, state = nnx.split(config.make(features, rngs=nnx.Rngs(0)))

    def search(state, batch):
        return [top(scores, mask=mask, keep=KEEP) for scores, mask in nnx.merge(graph, state).scores(batch)]

    def forward(state, batch):
        return nnx.merge(graph, state)(batch)["logit"]

    made = {"search": jax.jit(search), "forward": jax.jit(forward)}
    return {name: lambda batch, f=f: jax.block_until_ready(f(state, batch)) for name, f in made.items()}


def measure(*, length: int, rows: int, candidates: int) -> dict:
    features = features_of(length)
    batches = {
        "rows": batch_of(features, users=rows, candidates=rows),
        "request": batch_of(features, users=1, candidates=candidates),
    }
    runs = {width: stages(features, width=width) for width in WIDTHS}
    cases = [(stage, kind) for stage in ("search", "forward") for kind in batches]
    taken: dict[tuple, list[float]] = {}
    for stage, kind in cases:
        for again in range(ROUNDS + 2):
            for width in WIDTHS:
                start = time.process_time()
                runs[width][stage](batches[kind])
                if again >= 2:  # compiled, and caches warm
                    taken.setdefault((stage, kind, width), []).append(time.process_time() - start)
    found: dict = {"length": length, "rows": rows, "candidates": candidates, "keep": KEEP}
    for stage, kind in cases:
        ms = {width: 1e3 * statistics.median(taken[stage, kind, width]) for width in WIDTHS}
        found[f"{stage}, {kind}"] = {
            **{f"width {width}: ms": round(t, 3) for width, t in ms.items()},
            **{f"width {width}: times faster than 16": round(ms[16] / ms[width], 2) for width in WIDTHS[1:]},
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(length=args.length, rows=args.rows, candidates=args.candidates)
    found["device"] = jax.devices()[0].device_kind
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
