"""What every index is, and what it refuses.

An engine finds rows of a matrix; an index gives them ids, attributes and the version of the model that made them.
Of k asked for, fewer may exist: then the score is -inf, and the id beside it means nothing (-1, or an empty string).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from data.errors import UserError
from serve.index.where import Where

Metric = Literal["dot", "cosine"]
Ids = Sequence[int] | Sequence[str] | np.ndarray
Found = tuple[np.ndarray, np.ndarray]
"""[q, k] of rows or ids, and [q, k] of scores, best first."""

BLOCK = 1 << 16


class Index(Protocol):
    metric: Metric
    model: str
    """Version of the model that made the vectors; "" where nobody said."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, *, k: int, where: Where | None = None) -> Found:
        """The k best of each query, ids [q, k] and scores [q, k], among the items that meet `where`."""
        ...


@dataclass(frozen=True)
class Kept:
    """Which rows of an engine may be found. `count` is how many."""

    mask: np.ndarray
    count: int

    @classmethod
    def of(cls, mask: np.ndarray) -> "Kept":
        return cls(mask, int(np.count_nonzero(mask)))

    def at(self, rows: np.ndarray) -> np.ndarray:
        return self.mask[rows]

    def rows(self) -> np.ndarray:
        return np.flatnonzero(self.mask)


class Keeps(Protocol):
    """A Kept, or what answers like one without a mask of all rows."""

    @property
    def count(self) -> int: ...

    def at(self, rows: np.ndarray) -> np.ndarray: ...

    def rows(self) -> np.ndarray: ...


class Engine(Protocol):
    """Rows of `vectors` by their product with queries."""

    name: str
    vectors: np.ndarray

    def nearest(self, queries: np.ndarray, *, k: int, keep: Keeps | None = None) -> Found:
        """Rows [q, k] and scores [q, k]; row -1 and score -inf where there is no k-th."""
        ...

    def about(self) -> dict[str, Any]:
        """What is written beside it."""
        ...


def checked_items(vectors: np.ndarray, *, ids: Ids, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as the metric compares them, and ids as int64 or strings."""
    vectors, keys = np.ascontiguousarray(vectors, np.float32), np.asarray(ids)
    if vectors.ndim != 2 or keys.shape != (len(vectors),):
        raise UserError(f"an index needs vectors [n, d] and an id each, got shapes {vectors.shape} and {keys.shape}")
    keys = checked_ids(keys)
    values, counts = np.unique(keys, return_counts=True)
    if len(values) < len(keys):
        raise UserError(f"id {values[counts.argmax()].item()!r} stands twice among the vectors of the index")
    faulty = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(faulty):
        raise UserError(f"the vector of id {keys[faulty[0]]} is not finite, and {len(faulty) - 1} more")
    return (unit(vectors, what="vector") if metric == "cosine" else vectors), keys


def checked_ids(ids: Ids) -> np.ndarray:
    keys = np.asarray(ids)
    if keys.dtype.kind not in "iuU" and len(keys):
        raise UserError(f"ids of an index are integers or strings, not {keys.dtype}")
    if keys.dtype.kind == "u" and len(keys) and keys.max() > np.iinfo(np.int64).max:
        raise UserError(f"id {keys.max()} does not fit into 64 bits with a sign; give such ids as strings")
    return keys.astype(np.int64) if keys.dtype.kind != "U" else keys


def checked_queries(queries: np.ndarray, *, dim: int, metric: Metric, k: int) -> np.ndarray:
    queries = np.asarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise UserError(f"queries have shape {queries.shape}, the index holds vectors of {dim}")
    if k < 1:
        raise UserError(f"cannot find the {k} nearest vectors; choose k from 1")
    if not np.isfinite(queries).all():
        faulty = np.flatnonzero(~np.isfinite(queries).all(1))
        raise UserError(f"query {faulty[0]} is not finite, and {len(faulty) - 1} more")
    return unit(queries, what="query") if metric == "cosine" else queries


def unit(vectors: np.ndarray, *, what: str) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = np.flatnonzero(norms[:, 0] == 0)
    if len(zero):
        raise UserError(f"{what} {zero[0]} is all zeros and has no direction; use metric dot or leave it out")
    return vectors / norms


def named(found: Found, *, ids: np.ndarray) -> Found:
    """Ids in place of rows."""
    rows, scores = found
    if not len(ids):
        return np.full(rows.shape, nothing(ids), ids.dtype), scores
    out = ids[rows]
    missing = rows < 0
    if missing.any():
        out[missing] = nothing(ids)
    return out, scores


def nothing(ids: np.ndarray) -> Any:
    """Stands beside a score of -inf."""
    return "" if ids.dtype.kind == "U" else -1


def best(rows: np.ndarray, scores: np.ndarray, *, k: int) -> Found:
    """The k best columns of each line; of equal scores the earlier column comes first, and gaps come last."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return padded(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1), k=k)


def padded(rows: np.ndarray, scores: np.ndarray, *, k: int) -> Found:
    """Exactly k columns."""
    short = k - rows.shape[1]
    if short > 0:
        rows = np.concatenate([rows, np.full((len(rows), short), -1, rows.dtype)], axis=1)
        scores = np.concatenate([scores, np.full((len(scores), short), -np.inf, scores.dtype)], axis=1)
    return rows, scores


def compared(vectors: np.ndarray, queries: np.ndarray, *, k: int, rows: np.ndarray | None = None) -> Found:
    """Exact search on the host among `rows` (default: all): nothing is compiled, whatever the sizes are."""
    count = len(vectors) if rows is None else len(rows)
    at, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, count, BLOCK):
        if rows is None:
            chosen = np.arange(start, min(start + BLOCK, count))
            piece = vectors[start : start + BLOCK]
        else:
            chosen = rows[start : start + BLOCK]
            piece = vectors[chosen]
        found = queries @ np.asarray(piece).T
        columns = _top(found, k=k)
        at = np.concatenate([at, chosen[columns]], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(found, columns, 1)], axis=1)
        at, scores = best(at, scores, k=k)
    return padded(at, scores, k=k)


def _top(scores: np.ndarray, *, k: int) -> np.ndarray:
    """Columns of the k best, in any order; of those that equal the k-th best the earliest."""
    count = scores.shape[1]
    if k >= count:
        return np.broadcast_to(np.arange(count), scores.shape)
    kth = np.partition(scores, count - k, axis=1)[:, count - k]
    out = np.zeros((len(scores), k), np.int64)
    for line, least, into in zip(scores, kth, out, strict=True):
        above, equal = np.flatnonzero(line > least), np.flatnonzero(line == least)
        into[: len(above)] = above
        into[len(above) :] = equal[: k - len(above)]
    return np.sort(out, axis=1)


def full_mask(keep: Keeps, *, count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[keep.rows()] = True
    return mask
