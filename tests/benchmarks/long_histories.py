"""Training and scoring rows/s, and scratch memory, of towers over histories of 50 to 10,000 behaviours.

    python -m tests.benchmarks.long_histories [--json FILE] [--systems DIN TIN] [--lengths 50 200 1000 10000]

Batches hold as many behaviours as 64 rows of 50, and 8 rows at least. Rows and dispatch are those of
tests/benchmarks/target_attention.py. Scratch memory is what the compiled step allocates beside its inputs; `behaviours`
is the size of one array [rows, length, width] of behaviours, which no tower can do without.
"""

import argparse
import importlib
import json
import os
from pathlib import Path

from tests.benchmarks.target_attention import Run, timed

SYSTEMS = {"DIN": "modules.behavior.din", "SDIM": "modules.behavior.sdim"}
SYSTEMS |= {"DARE": "modules.behavior.dare", "TIN": "modules.behavior.tin"}
WIDTH = 16


def measure(system: str, *, length: int, rounds: int) -> dict:
    config = getattr(importlib.import_module(SYSTEMS[system]), system)
    rows = max(8, 64 * 50 // length)
    run = Run(length=length, width=WIDTH, rows=rows, model=config(dim=WIDTH))
    run.train()
    run.score()
    train = min(timed(run.train, rows=rows, count=2) for _ in range(rounds))
    score = min(timed(run.score, rows=rows, count=2) for _ in range(rounds))
    return {
        "system": system,
        "length": length,
        "rows": rows,
        "train_cpu_us_per_behaviour": round(train[0] / length, 3),
        "train_rows_per_s": round(train[1], 1),
        "score_cpu_us_per_behaviour": round(score[0] / length, 3),
        "score_rows_per_s": round(score[1], 1),
        "scratch_mib": round(run.scratch / 2**20, 1),
        "behaviours_mib": round(rows * length * 2 * WIDTH * 4 / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for system in args.systems:
        for length in args.lengths:
            rows.append(measure(system, length=length, rounds=args.rounds))
            print(json.dumps(rows[-1]), flush=True)
    result = {"benchmark": "long_histories", "cpus": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}
    if args.json:
        args.json.write_text(json.dumps({**result, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
