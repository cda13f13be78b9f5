"""Metrics of lists as they are shown, whoever made them: by an exact search, an index, several rounds or a mixture.

Beside "top" [b, K] (-1 past the end; see `train.metrics.ranking`) an evaluator of lists hands on what it knows of
"exact" [b, K]               the list of an exact search, for `ExactRecall`
"top/vectors" [b, K, d]      vectors of what is shown, for `Diversity`
"top/groups" [b, K], "target/groups" [b, m]   a group (category, interest) of each, -1 for none, for `InterestCoverage`
"""

import chz
import numpy as np

from data.errors import UserError
from train.metrics.base import Accumulator, Arrays, column
from train.metrics.ranking import RankingMetric

NONE = -1


class RowMeans(Accumulator):
    """Mean of a value per cut-off over the rows that have one."""

    why = "no row had a value"

    def __init__(self, config: RankingMetric):
        self.config = config
        self.total, self.rows = np.zeros(len(config.ks)), np.zeros(len(config.ks), np.int64)

    def values(self, predictions: Arrays, k: int) -> np.ndarray:
        """[b], NaN where a row has no value."""
        raise NotImplementedError(f"{type(self).__name__} does not define values")

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        for place, k in enumerate(self.config.ks):
            value = self.values(predictions, k)
            self.total[place] += np.nansum(value)
            self.rows[place] += np.isfinite(value).sum()

    def merge(self, other: "RowMeans") -> None:
        self.total = self.total + other.total
        self.rows = self.rows + other.rows

    def compute(self) -> dict[str, float]:
        means = np.where(self.rows > 0, self.total / np.maximum(self.rows, 1), np.nan)
        return {f"{self.config.name}@{k}": float(m) for k, m in zip(self.config.ks, means, strict=True)}

    def reasons(self) -> dict[str, str]:
        return {name: self.why for name, value in self.compute().items() if np.isnan(value)}


@chz.chz
class ExactRecall(RankingMetric):
    """Share of the k best by exact search that stand among the first k: what an approximate list keeps of it."""

    name: str = "exact_recall"

    def make(self) -> "ExactRecallAccumulator":
        return ExactRecallAccumulator(self)


class ExactRecallAccumulator(RowMeans):
    why = "no row has an exact list"

    def values(self, predictions: Arrays, k: int) -> np.ndarray:
        top, exact = _first(predictions, "top", k), _first(predictions, "exact", k)
        found = (exact[:, :, None] == top[:, None, :]).any(axis=2) & (exact >= 0)
        count = (exact >= 0).sum(axis=1)
        return np.where(count > 0, found.sum(axis=1) / np.maximum(count, 1), np.nan)


@chz.chz
class Diversity(RankingMetric):
    """1 less the mean cosine between two of the first k (Ziegler et al., WWW 2005, as a mean).

    Of two lists the one that finds more is the better whatever this says: what is irrelevant is diverse too.
    """

    name: str = "diversity"

    def make(self) -> "DiversityAccumulator":
        return DiversityAccumulator(self)


class DiversityAccumulator(RowMeans):
    why = "no list shows two items that have a vector"

    def values(self, predictions: Arrays, k: int) -> np.ndarray:
        vectors = column(predictions, "top/vectors", what="predictions")[:, :k].astype(np.float64)
        norm = np.linalg.norm(vectors, axis=2)
        there = (_first(predictions, "top", k) >= 0) & (norm > 0)
        unit = np.where(there[:, :, None], vectors / np.maximum(norm, 1e-12)[:, :, None], 0.0)
        count = there.sum(axis=1)
        # The square of the sum has every pair twice, and each item's own 1 once.
        pairs = np.square(unit.sum(axis=1)).sum(axis=1) - count
        return np.where(count > 1, 1 - pairs / np.maximum(count * (count - 1), 1), np.nan)


@chz.chz
class InterestCoverage(RankingMetric):
    """Share of the groups of a row's targets that some item among the first k is of.

    Groups that a list touches at all are no measure: a query that lies between interests touches many, and none of
    them is the person's.
    """

    name: str = "interest_coverage"

    def make(self) -> "InterestCoverageAccumulator":
        return InterestCoverageAccumulator(self)


class InterestCoverageAccumulator(RowMeans):
    why = "no target has a group"

    def values(self, predictions: Arrays, k: int) -> np.ndarray:
        wanted = column(predictions, "target/groups", what="predictions")
        shown = _first(predictions, "top/groups", k)
        first = np.ones(wanted.shape, bool)  # a group that several targets share counts once
        for j in range(1, wanted.shape[1]):
            first[:, j] = (wanted[:, :j] != wanted[:, j : j + 1]).all(axis=1)
        real = first & (wanted != NONE)
        met = (wanted[:, :, None] == shown[:, None, :]).any(axis=2) & real
        count = real.sum(axis=1)
        return np.where(count > 0, met.sum(axis=1) / np.maximum(count, 1), np.nan)


def _first(predictions: Arrays, name: str, k: int) -> np.ndarray:
    ids = column(predictions, name, what="predictions")
    size = int(column(predictions, "catalogue", what="predictions"))
    if ids.shape[1] < min(k, size):
        raise UserError(f"a metric looks at the first {k}, but the lists of {name!r} hold {ids.shape[1]}: ask for more")
    return ids[:, :k]
