"""Seconds and peak memory of one vocabulary pass and one statistics pass over Parquet.

    python -m tests.benchmarks.vocabulary [rows] [columns]

Prints JSON. Peak memory is that of this process, without what writing the files took.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.features import Categorical, Features


def write(folder: str, rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    shard = 1_000_000
    for start in range(0, rows, shard):
        n = min(shard, rows - start)
        table = {}
        for i in range(columns):
            size = 10 ** (2 + i % 5)  # a hundred to a million values
            ids = (rng.random(n) ** 3 * size).astype(np.int64)
            table[f"c{i}"] = pa.array(ids).cast(pa.string()) if i % 2 else pa.array(ids)
        pq.write_table(pa.table(table), Path(folder) / f"part-{start:010d}.parquet")


def measured(job: str, folder: str, columns: int, out) -> None:
    from data.stats import measure
    from data.vocabulary import build

    begun = time.perf_counter()
    if job == "vocabulary":
        features = Features(
            all=tuple(Categorical(name=f"c{i}", rows=10**7, encode="vocabulary") for i in range(columns))
        )
        made = build(folder, features=features, floor=2)
        found = sum(len(vocabulary) for vocabulary in made.values())
    else:
        found = sum(column.distinct for column in measure(folder).columns)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    out.put({"seconds": round(time.perf_counter() - begun, 1), "peak_gib": round(peak, 2), "values": found})


def main(rows: int = 10_000_000, columns: int = 20) -> dict:
    out: dict = {"rows": rows, "columns": columns}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        process = spawn.Process(target=write, args=(folder, rows, columns))
        process.start()
        process.join()
        for job in ("vocabulary", "statistics"):
            queue = spawn.Queue()
            process = spawn.Process(target=measured, args=(job, folder, columns, queue))
            process.start()
            out[job] = queue.get(timeout=600)
            process.join()
    return out


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=1))
