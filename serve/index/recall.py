"""How much of the truth an engine finds, and the cheapest ScaNN that finds enough of it.

Half of the held-out queries choose the settings, the other half measure what was chosen. Queries that are rows of the
index themselves do not count their own row: it would be found by any search.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.errors import UserError
from serve.index.base import Engine
from serve.index.exact import Exact
from serve.index.scann_engine import DEPTH, FEWEST, Scann, Settings, leaves_for, train

DEEP = 100
REORDERS = (20, 40, 80, 160, 320, 640)
REPEATS = 3


@dataclass(frozen=True)
class Queries:
    """Held-out queries; `own` is the row of the index that a query is, or -1."""

    vectors: np.ndarray
    own: np.ndarray
    origin: str

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def given(cls, vectors: np.ndarray) -> "Queries":
        return cls(vectors, np.full(len(vectors), -1), "given")

    @classmethod
    def of_rows(cls, vectors: np.ndarray, *, count: int, seed: int = 0) -> "Queries":
        """Some rows of the index, drawn at random."""
        rows = np.random.default_rng(seed).permutation(len(vectors))[:count]
        return cls(np.asarray(vectors[rows]), rows, "rows of the index, their own row not counted")

    def take(self, part: slice) -> "Queries":
        return Queries(self.vectors[part], self.own[part], self.origin)


def nearest(engine: Engine, queries: Queries, *, k: int) -> np.ndarray:
    """Rows of the k best, without the query's own row."""
    rows, _ = engine.nearest(queries.vectors, k=k + 1)
    own = rows == queries.own[:, None]
    order = np.argsort(own, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1)[:, :k]


def recalls(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each query, the share of the true rows that was found. Rows of -1 are none."""
    hit = (found[:, :, None] == truth[:, None, :]) & (truth[:, None, :] >= 0)
    return hit.any(axis=1).sum(axis=1) / np.maximum((truth >= 0).sum(axis=1), 1)


def measured(engine: Engine, queries: Queries) -> dict[str, Any]:
    """Recall at 10 and, of sets that have so many rows, at 100."""
    exact = Exact(engine.vectors)
    at = {}
    for k in (DEPTH, DEEP):
        if len(engine.vectors) > k:
            truth = nearest(exact, queries, k=k)
            at[str(k)] = round(float(recalls(nearest(engine, queries, k=k), truth).mean()), 4)
    return {"at": at, "queries": len(queries), "from": queries.origin}


@dataclass(frozen=True)
class Chosen:
    engine: Engine
    why: str
    """The engine and its settings were taken because ..."""


def choose(vectors: np.ndarray, *, target: float, queries: Queries, threads: int = 0) -> Chosen:
    """ScaNN with the fastest settings whose recall at 10 reaches the target, or exact search where none does."""
    if not 0 < target <= 1:
        raise UserError(f"a recall lies in (0, 1], not at {target}")
    exact = Exact(vectors)
    if len(vectors) < FEWEST:
        return Chosen(
            exact, f"{len(vectors):,} vectors: fewer than {FEWEST:,} are compared as fast as a tree finds them"
        )
    if len(queries) < 2:
        raise UserError(f"{len(queries)} held-out queries cannot choose and measure settings; give at least 2")
    tuning = queries.take(slice(0, None, 2))
    leaves = leaves_for(len(vectors))
    tree = train(vectors, settings=Settings(leaves, searched=max(leaves // 20, 1), reorder=100), threads=threads)
    truth = nearest(exact, tuning, k=DEPTH)
    best: tuple[float, Settings] | None = None
    for settings in _enough(tree, tuning, truth=truth, target=target):
        seconds = _seconds(tree.with_settings(settings), tuning)
        if best is None or seconds < best[0]:
            best = seconds, settings
    if best is None:
        return Chosen(exact, f"no settings of ScaNN tried reach a recall of {target} here, so all vectors are compared")
    return Chosen(tree.with_settings(best[1]), f"the fastest of the settings tried that reach a recall of {target}")


def _enough(tree: Scann, queries: Queries, *, truth: np.ndarray, target: float) -> Iterator[Settings]:
    """For each number of rows to reorder, the fewest leaves that are enough, where any are."""
    leaves = tree.settings.leaves
    grid = sorted({max(1, round(leaves ** (i / 40))) for i in range(41)})

    def reaches(settings: Settings) -> bool:
        found = recalls(nearest(tree.with_settings(settings), queries, k=DEPTH), truth)
        # One standard error above the target: the best of many settings on few queries is in part luck.
        return bool(found.mean() - found.std() / np.sqrt(len(found)) >= min(target, 1 - 1e-9))

    for reorder in REORDERS:
        low, high = 0, len(grid)
        while low < high:
            middle = (low + high) // 2
            if reaches(replace(tree.settings, searched=grid[middle], reorder=reorder)):
                high = middle
            else:
                low = middle + 1
        if low < len(grid):
            yield replace(tree.settings, searched=grid[low], reorder=reorder)


def _seconds(engine: Engine, queries: Queries) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine.nearest(queries.vectors, k=DEPTH)
        times.append(time.perf_counter() - start)
    return min(times)
