"""Splits of one file, decided row by row while it streams."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from data.building.read import ROW
from data.hashing import mix

SHARES = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


def by_row(tables: Iterable[pa.Table], *, start: int, end: int) -> Iterator[pa.Table]:
    """Rows `start` to `end` of the file, for files in the order of time."""
    for table in tables:
        rows = table[ROW].to_numpy()
        if len(rows) and rows[0] >= end:
            return
        yield table.filter(pa.array((rows >= start) & (rows < end)))


def at_random(tables: Iterable[pa.Table], split: str, *, seed: int = 0) -> Iterator[pa.Table]:
    """8:1:1 by the hash of the row's number."""
    low, high = SHARES[split]
    for table in tables:
        even = mix(mix(table[ROW].to_numpy()) ^ np.uint64(seed)) / 2.0**64
        yield table.filter(pa.array((even >= low) & (even < high)))


def between(tables: Iterable[pa.Table], column: str, *, low: int, high: int) -> Iterator[pa.Table]:
    """Rows whose value lies in low..high, the end left out."""
    for table in tables:
        values = table[column].to_numpy()
        yield table.filter(pa.array((values >= low) & (values < high)))
