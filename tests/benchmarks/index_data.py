"""Vectors for the benchmarks of indexes, and how searches are timed: on one core, in turns."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.vectors import read
from serve.index.base import compared

BATCH = 1000
K = 10


def one_core() -> None:
    """Everything that follows shares one core, whatever threads the libraries start."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def mixture(*, rows: int, queries: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and queries of one mixture: rows / 100 normal clusters of unequal size, as wide as they lie apart."""
    rng = np.random.default_rng(seed)
    count = max(rows // 100, 1)
    centres = rng.normal(size=(count, dim)).astype(np.float32)
    share = rng.gamma(1.0, size=count)
    places = rng.choice(count, rows + queries, p=share / share.sum())
    noise = rng.normal(size=(rows + queries, dim)).astype(np.float32)
    points = centres[places] + noise * rng.uniform(0.5, 1.0, size=(count, 1)).astype(np.float32)[places]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points[:rows], points[rows:]


def of_file(path: Path, *, queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of a file of vectors are left out of the index, and ask."""
    _, vectors, _ = read(path)
    order = np.random.default_rng(seed).permutation(len(vectors))
    return vectors[order[queries:]], vectors[order[:queries]]


def truth(vectors: np.ndarray, queries: np.ndarray, *, k: int = K) -> np.ndarray:
    parts = [compared(vectors, queries[start : start + 256], k=k)[0] for start in range(0, len(queries), 256)]
    return np.concatenate(parts)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found[:, :, None] == wanted[:, None, :]).any(axis=1).mean())


def in_turns(searches: dict[str, Callable[[], object]], *, queries: dict[str, int], rounds: int) -> dict[str, dict]:
    """Queries per second of processor time, the median of rounds in which each has its turn.

    On one core that is the time of a quiet machine, whatever else runs. Every second round goes backwards, so that
    nobody always finds the caches as a gentle neighbour left them.
    """
    rates: dict[str, list[float]] = {name: [] for name in searches}
    for search in searches.values():
        search()
    for turn in range(rounds):
        for name, search in list(searches.items())[:: -1 if turn % 2 else 1]:
            start = time.process_time()
            search()
            rates[name].append(queries[name] / (time.process_time() - start))
    return {
        name: {"qps": statistics.median(found), "least": min(found), "most": max(found)}
        for name, found in rates.items()
    }
