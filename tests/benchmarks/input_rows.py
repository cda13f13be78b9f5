"""Rows per second from Parquet to device arrays: 26 categorical and 13 numeric columns and a label.

    python -m tests.benchmarks.input_rows [rows] [batch_size]

Prints JSON: the whole way (open, encode, shuffle, device), and a further epoch from memory and from the mapped cache.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.features import Categorical, Features, Label, Numeric
from data.parquet import Parquet
from data.pipeline import Loader
from data.sources import Source

CATEGORIES = 26
NUMBERS = 13


def features(encode: str) -> Features:
    return Features(
        all=(
            *(Categorical(name=f"c{i}", rows=100_002, encode=encode) for i in range(CATEGORIES)),
            *(Numeric(name=f"n{i}", transform="log1p") for i in range(NUMBERS)),
            Label(name="click"),
        )
    )


def write(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    shard = 500_000
    for start in range(0, rows, shard):
        n = min(shard, rows - start)
        columns = {f"c{i}": np.minimum(rng.zipf(1.3, n), 100_001).astype(np.int32) for i in range(CATEGORIES)}
        columns |= {f"n{i}": rng.exponential(3, n).astype(np.float32) for i in range(NUMBERS)}
        columns["click"] = (rng.random(n) < 0.1).astype(np.int8)
        pq.write_table(pa.table(columns), folder / f"part-{start:010d}.parquet", row_group_size=131_072)


def to_device(source: Source, batch_size: int) -> float:
    """Seconds for one shuffled epoch."""
    begun = time.perf_counter()
    batches = Loader(batch_size=batch_size, epochs=1).open(source)
    for batch in batches:
        jax.block_until_ready(jax.device_put(batch))
    return time.perf_counter() - begun


def main(rows: int = 2_000_000, batch_size: int = 4096) -> dict:
    out: dict = {"rows": rows, "batch_size": batch_size}
    jax.block_until_ready(jax.device_put(np.zeros(1)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "logs"
        folder.mkdir()
        write(folder, rows)
        for encode in ("id", "hash"):
            begun, worked = time.perf_counter(), time.process_time()
            source = Parquet(path=str(folder), features=features(encode), memory=8.0).make()
            opened = time.perf_counter() - begun
            epoch = to_device(source, batch_size)
            worked = time.process_time() - worked
            out[encode] = {
                "encode_rows_per_s": round(rows / opened),
                "parquet_to_device_rows_per_s": round(rows / (opened + epoch)),
                "next_epoch_rows_per_s": round(rows / epoch),
                "cpu_us_per_row": round(1e6 * worked / rows, 2),  # what a machine busy with other work still tells
            }
        config = Parquet(path=str(folder), features=features("id"), memory=0.0, cache=f"{name}/cache")
        begun = time.perf_counter()
        source = config.make()
        out["mapped"] = {
            "encode_rows_per_s": round(rows / (time.perf_counter() - begun)),
            "next_epoch_rows_per_s": round(rows / to_device(source, batch_size)),
        }
    return out


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=1))
