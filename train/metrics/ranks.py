"""From scores to ranks: exact, blockwise, ties against the target."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.errors import UserError
from train.metrics.base import Arrays, column

NO_ITEM = -1
BLOCK = 1 << 23  # scores held at once by a retrieval evaluation


@dataclass(frozen=True)
class Ranked:
    """Ranks of targets [b, m] (0 where there is none), and the best candidates [b, K] (-1 past the end)."""

    rank: np.ndarray  # ties count against the target
    ties: np.ndarray  # candidates, not targets, that tie with the target
    top: np.ndarray


def padded(batch: Arrays, name: str) -> np.ndarray:
    """Ids of `name` as [b, m] with -1 where the row has no more; one id per row becomes m = 1."""
    ids = column(batch, name)
    if ids.ndim == 1:
        return ids[:, None].astype(np.int64)
    length = batch.get(f"{name}/length")
    ids = ids.astype(np.int64)
    return ids if length is None else np.where(np.arange(ids.shape[1]) < length[:, None], ids, NO_ITEM)


def allow(shape: tuple[int, int], *, forbidden: np.ndarray | None, only: np.ndarray | None = None) -> np.ndarray:
    """Candidate mask [b, V]: the columns `only` (all if None) less the columns `forbidden`; -1 is no column."""
    for ids in (forbidden, only):
        if ids is not None and ids.max(initial=-1) >= shape[1]:
            raise UserError(
                f"item {ids.max()} is outside the {shape[1]} scores of a row: model and evaluator have other catalogues"
            )
    rows = np.arange(shape[0])[:, None]
    mask = np.full((shape[0], shape[1] + 1), only is None)  # the last column takes the -1
    if only is not None:
        mask[rows, only] = True
    if forbidden is not None:
        mask[rows, forbidden] = False
    return mask[:, :-1]


def rank_targets(scores: np.ndarray, *, targets: np.ndarray, allowed: np.ndarray, k: int) -> Ranked:
    """Ranks `targets` [b, m] (-1: none) among the allowed columns of `scores` [b, V]; targets are always candidates.

    Rank is 1 + candidates that score at least as high + targets that score higher, those equal by their order.
    """
    if np.isnan(scores).any():
        raise UserError(f"{int(np.isnan(scores).any(axis=1).sum())} of {len(scores)} rows hold scores that are NaN")
    for j in range(1, targets.shape[1]):  # a target that is listed twice counts once
        twice = (targets[:, :j] == targets[:, j : j + 1]).any(axis=1)
        targets = np.where((np.arange(targets.shape[1]) == j) & twice[:, None], NO_ITEM, targets)
    real = targets >= 0
    if targets.max(initial=-1) >= scores.shape[1]:
        raise UserError(f"target {targets.max()} is outside the {scores.shape[1]} scores of a row")
    rows = np.arange(len(scores))[:, None]
    own = np.where(real, scores[rows, np.where(real, targets, 0)], np.nan)  # [b, m]; NaN compares False
    others = allowed.copy()
    np.put_along_axis(others, np.where(real, targets, targets.max(axis=1, keepdims=True)).clip(0), False, axis=1)
    rank, ties = np.zeros(targets.shape, np.int64), np.zeros(targets.shape, np.int64)
    for j in range(targets.shape[1]):
        ties[:, j] = ((scores == own[:, j : j + 1]) & others).sum(axis=1)
        above = ((scores > own[:, j : j + 1]) & others).sum(axis=1)
        before = (own > own[:, j : j + 1]).sum(axis=1) + (own[:, :j] == own[:, j : j + 1]).sum(axis=1)
        rank[:, j] = 1 + above + ties[:, j] + before
    rank[~real], ties[~real] = 0, 0
    mine = np.zeros((len(scores), scores.shape[1] + 1), bool)
    mine[rows, targets] = True
    return Ranked(rank=rank, ties=ties, top=top_k(scores, allowed=allowed | mine[:, :-1], k=k))


def top_k(scores: np.ndarray, *, allowed: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest allowed scores, best first, the lower id first among equals; -1 past the end."""
    k = min(k, scores.shape[1])
    if k == 0:
        return np.zeros((len(scores), 0), np.int64)
    scores = np.where(allowed, scores, -np.inf)
    if k < scores.shape[1]:
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best.sort(axis=1)
    else:
        best = np.broadcast_to(np.arange(k), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    return np.where(np.take_along_axis(allowed, best, axis=1), best, NO_ITEM)


def positions(ids: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Where each id stands in the sorted `key`; -1 where it does not."""
    place = np.minimum(np.searchsorted(key, ids), len(key) - 1)
    return np.where((key[place] == ids) & (ids >= 0), place, NO_ITEM)


def keys_of(top: np.ndarray, key: np.ndarray) -> np.ndarray:
    return np.where(top >= 0, key[np.maximum(top, 0)], NO_ITEM)


def rank_blocks(
    queries: np.ndarray, items: np.ndarray, targets: np.ndarray, *, forbidden: np.ndarray | None, k: int
) -> Iterator[tuple[slice, Ranked]]:
    """Ranks a block of queries at a time, about BLOCK scores each.

    Products are summed in float64 and rounded to float32, so that equal vectors tie wherever they stand.
    """
    wide = items.astype(np.float64).T
    step = max(1, BLOCK // len(items))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = (queries[rows].astype(np.float64) @ wide).astype(np.float32)
        allowed = allow(scores.shape, forbidden=None if forbidden is None else forbidden[rows])
        yield rows, rank_targets(scores, targets=targets[rows], allowed=allowed, k=k)
