"""Items by what is like them: for each item its nearest by content, of the same category and within a range of price.

Also across domains: for each video or live clip the listings nearest to it, by which histories in one domain say
something in another (`data/transforms/expand_history.py`). All vectors are compared, by cosine and in blocks; with
`same` only those that share the value, so that a million items in a thousand categories cost a thousandth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError
from data.vectors import read
from modules.retrieval.knn_embed import best, unit
from serve.index.attributes import read_attributes

BLOCK = 1 << 23  # cosines held at once
NONE = -1


@dataclass(frozen=True)
class Near:
    """Rows of the items [n, k], -1 past the end, and their cosines."""

    rows: np.ndarray
    cosine: np.ndarray


def near(
    queries: np.ndarray,
    items: np.ndarray,
    *,
    count: int,
    itself: bool = True,
    same: Sequence[np.ndarray] = (),
    within: Sequence[tuple[np.ndarray, float]] = (),
    least: float = -1.0,
) -> Near:
    """The `count` nearest items of each query, the earlier among equals; without `itself` row i does not find row i.

    `same` and `within` speak of items, so queries must be the items themselves: whole numbers that must be equal (below
    0: none, and an item without one has no neighbours and is none), and numbers that may differ by a share of the
    query's (NaN: none). A zero vector is like nothing.
    """
    if (same or within) and len(queries) != len(items):
        raise UserError("constraints compare items with items: leave them out where queries are of another domain")
    asks, found = unit(queries), unit(items)
    there = (found != 0).any(axis=1)
    rows = np.full((len(asks), count), NONE, np.int64)
    cosine = np.full((len(asks), count), np.nan, np.float32)
    for mine, others in _groups(same, queries=len(asks), items=len(items)):
        others = others[there[others]]
        step = max(1, BLOCK // max(len(others), 1))
        for start in range(0, len(mine) if len(others) else 0, step):
            block = mine[start : start + step]
            scores = asks[block] @ found[others].T
            allowed = (scores >= least) & (asks[block] != 0).any(axis=1)[:, None]
            for values, share in within:
                gap = np.abs(values[others][None] - values[block][:, None])
                allowed &= gap <= share * np.abs(values[block])[:, None]  # NaN compares False
            if not itself:
                allowed &= others[None] != block[:, None]
            scores = np.where(allowed, scores, -np.inf)
            at = best(scores, count=min(count, len(others)))
            score = np.take_along_axis(scores, at, axis=1)
            rows[block, : at.shape[1]] = np.where(np.isfinite(score), others[at], NONE)
            cosine[block, : at.shape[1]] = np.where(np.isfinite(score), score, np.nan)
    return Near(rows, cosine)


def _groups(same: Sequence[np.ndarray], *, queries: int, items: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows that ask and rows that may be found, compared with each other alone."""
    if not same:
        return [(np.arange(queries), np.arange(items))]
    values = np.stack([np.asarray(v, np.int64) for v in same], axis=1)
    known = np.flatnonzero((values >= 0).all(axis=1))
    _, group = np.unique(values[known], axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    parts = np.split(known[order], np.flatnonzero(np.diff(group.ravel()[order])) + 1)
    return [(part, part) for part in parts if len(part)]


def write_neighbours(
    vectors: Path,
    *,
    output: Path,
    queries: Path | None = None,
    count: int = 50,
    attributes: Path | None = None,
    same: Sequence[str] = (),
    within: Mapping[str, float] | None = None,
    least: float = -1.0,
) -> dict[str, Any]:
    """Of vectors that `embed` wrote, to a Parquet file {id, neighbours, cosine} or, for whole-number ids, to a .npy
    file whose row is the id, 0 past the end: what `HardNegatives` and `ExpandHistory` read."""
    if output.suffix not in (".parquet", ".npy"):
        raise UserError(f"{output}: name a .parquet or a .npy file")
    if count < 1:
        raise UserError(f"cannot find {count} neighbours; choose count from 1")
    ids, items, model = read(vectors)
    asking, asks = ids, items
    if queries is not None:
        asking, asks, _ = read(queries, model=model)
        if asks.shape[1] != items.shape[1]:
            raise UserError(f"{queries} holds vectors of {asks.shape[1]}, {vectors} of {items.shape[1]}")
    constraints = _constraints(attributes, ids=ids, same=same, within=within or {}, across=queries is not None)
    found = near(asks, items, count=count, itself=queries is not None, least=least, **constraints)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(output.name + ".part")
    if output.suffix == ".npy":
        with part.open("wb") as file:
            np.save(file, table_of(found.rows, asking=asking, ids=ids))
    else:
        pq.write_table(_listed(found, asking=asking, ids=ids), part)
    part.replace(output)
    held = (found.rows >= 0).sum(axis=1)
    return {"rows": len(asking), "neighbours": float(held.mean()), "alone": int((held == 0).sum())}


def table_of(rows: np.ndarray, *, asking: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """[largest asking id + 1, k] ids of the neighbours; 0 where there is none."""
    for some in (asking, ids):
        if some.dtype.kind not in "iu" or some.min(initial=0) < 0:
            raise UserError("a .npy file of neighbours has a row per id: these are no whole numbers; write .parquet")
    out = np.zeros((int(asking.max(initial=-1)) + 1, rows.shape[1]), np.int32)
    out[asking] = np.where(rows >= 0, ids[np.maximum(rows, 0)], 0)
    return out


def _listed(found: Near, *, asking: np.ndarray, ids: np.ndarray) -> pa.Table:
    there = found.rows >= 0
    ends = np.concatenate([[0], there.sum(axis=1).cumsum()])
    offsets = pa.array(ends, pa.int32()) if ends[-1] < np.iinfo(np.int32).max else None
    if offsets is None:
        raise UserError(f"{ends[-1]:,} neighbours are more than one file holds: lower --count")
    return pa.table(
        {
            "id": pa.array(asking),
            "neighbours": pa.ListArray.from_arrays(offsets, pa.array(ids[found.rows[there]])),
            "cosine": pa.ListArray.from_arrays(offsets, pa.array(found.cosine[there])),
        }
    )


def _constraints(
    attributes: Path | None, *, ids: np.ndarray, same: Sequence[str], within: Mapping[str, float], across: bool
) -> dict[str, Any]:
    if not same and not within:
        return {}
    if attributes is None or across:
        what = "--attributes with their values" if attributes is None else "neighbours of the items themselves"
        raise UserError(f"--same and --within need {what}")
    columns = read_attributes(attributes, ids=ids)[0].columns
    if lost := [name for name in (*same, *within) if name not in columns]:
        raise UserError(f"{attributes} has no column {lost[0]!r}; it has {', '.join(sorted(columns))}")
    if odd := [name for name in within if columns[name].kind not in ("integer", "number")]:
        raise UserError(f"--within {odd[0]}: {attributes} holds {columns[odd[0]].kind} there, which has no range")
    codes = [np.unique(columns[n].values, return_inverse=True)[1].ravel() for n in same]
    return {
        "same": [np.where(columns[n].valid, code, NONE) for n, code in zip(same, codes, strict=True)],
        "within": [
            (np.where(columns[n].valid, columns[n].values.astype(np.float64), np.nan), share)
            for n, share in within.items()
        ],
    }
