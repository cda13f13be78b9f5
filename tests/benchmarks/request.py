"""One user with 1,000 candidates: the user's part once, against the same rows written out.

    python -m tests.benchmarks.request [--json FILE] [--systems DIN SDIM] [--lengths 50 1000]

Scores of one request of the model of tests/benchmarks/target_attention.py, in turns; rows/s are candidates per second.
"""

import argparse
import importlib
import json
import os
import statistics
from pathlib import Path

import jax
import numpy as np

from tests.benchmarks.long_histories import SYSTEMS, WIDTH
from tests.benchmarks.target_attention import Run, timed

CANDIDATES = 1000


def measure(system: str, *, length: int, rounds: int) -> dict:
    config = getattr(importlib.import_module(SYSTEMS[system]), system)
    run = Run(length=length, width=WIDTH, rows=CANDIDATES, model=config(dim=WIDTH), compiled=False)
    shared = [n for n in run.batch if n.startswith(("user", "history"))]
    whole = jax.device_get(run.batch)
    for name in shared:  # a user who has done all that fits
        if name.endswith("/length"):
            whole[name] = np.full_like(whole[name], length)
    weights = run.program.weights(run.state)
    request = jax.device_put({n: a[:1] if n in shared else a for n, a in whole.items()})
    tiled = jax.device_put({n: np.repeat(a[:1], CANDIDATES, 0) if n in shared else a for n, a in whole.items()})

    def score(batch):
        with jax.set_mesh(run.mesh):
            return jax.block_until_ready(run.program.predict(weights, batch))["score"]

    np.testing.assert_allclose(score(request), score(tiled), rtol=1e-5, atol=1e-6)
    figures: dict[str, list[tuple[float, float]]] = {"request": [], "tiled": []}
    for _ in range(rounds):
        for name, batch in (("request", request), ("tiled", tiled)):
            figures[name].append(timed(lambda batch=batch: score(batch), rows=CANDIDATES, count=2))
    row: dict = {"system": system, "length": length, "candidates": CANDIDATES}
    for name, found in figures.items():
        row[f"{name}_cpu_us_per_row"] = round(statistics.median(c for c, _ in found), 2)
        row[f"{name}_rows_per_s"] = round(statistics.median(w for _, w in found))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["DIN", "SDIM"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = []
    for system in args.systems:
        for length in args.lengths:
            rows.append(measure(system, length=length, rounds=args.rounds))
            print(json.dumps(rows[-1]), flush=True)
    result = {"benchmark": "request", "cpus": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}
    if args.json:
        args.json.write_text(json.dumps({**result, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
