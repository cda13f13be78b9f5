"""How the engine of an index is made, at first and again at every merge."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from data.errors import UserError
from serve.index.base import Engine
from serve.index.exact import Exact
from serve.index.recall import Queries, choose, measured

EngineName = Literal["exact", "scann"]
RECALL = 0.95
QUERIES = 1000
"""Rows drawn as queries where none are given: half of them choose settings, half measure."""
MOST = 4000
"""Of given queries, that many are used, and kept for the next merge."""


@dataclass(frozen=True)
class Made:
    engine: Engine
    about: dict[str, Any]
    """Engine, settings, the recall measured, and why it was chosen."""


@dataclass(frozen=True)
class Plan:
    """`recall` at 10 is aimed at by measurement on `queries`, or on rows of the index where there are none.

    Of an exact engine it is what accelerators aim at; the host compares all.
    """

    engine: EngineName = "exact"
    recall: float | None = None
    queries: np.ndarray | None = field(default=None, compare=False)
    threads: int = 0

    def make(self, vectors: np.ndarray, *, threads: int | None = None) -> Made:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if self.engine == "exact":
            return _exact(vectors, why="asked for", settings={"recall": self.recall or 1.0})
        queries = Queries.of_rows(vectors, count=QUERIES) if self.queries is None else Queries.given(self.queries)
        target = RECALL if self.recall is None else self.recall
        chosen = choose(vectors, target=target, queries=queries, threads=self.threads if threads is None else threads)
        if isinstance(chosen.engine, Exact):
            return _exact(vectors, why=chosen.why)
        recall = {"target": target, **measured(chosen.engine, queries.take(slice(1, None, 2)))}
        about = {"engine": chosen.engine.name, "settings": chosen.engine.about(), "recall": recall, "why": chosen.why}
        return Made(chosen.engine, about)


def _exact(vectors: np.ndarray, *, why: str, settings: dict[str, Any] | None = None) -> Made:
    recall = {"at": {}, "queries": 0, "from": "every vector is compared"}
    return Made(Exact(vectors), {"engine": "exact", "settings": settings or {}, "recall": recall, "why": why})


def held_out(queries: np.ndarray | None, *, dim: int) -> np.ndarray | None:
    """Given queries as a plan keeps them."""
    if queries is None:
        return None
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim or len(queries) < 2:
        raise UserError(f"held-out queries are [n, {dim}] with n from 2, not {queries.shape}")
    if not np.isfinite(queries).all():
        raise UserError("held-out queries are not all finite; leave the others out")
    return np.random.default_rng(0).permutation(queries)[:MOST]
