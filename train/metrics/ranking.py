"""Ranking metrics at k from the ranks of a row's targets among all candidates.

An evaluator ranks once and hands every metric the same predictions:
  rank [b, m]  rank of each target, 1 is best, ties counted against the target; 0 where there is no target
  top [b, K]   ids of the best candidates, best first; -1 past the end
  catalogue    number of ids that can be recommended
Names end in "/sampledN" where an evaluator ranks among N negatives only: it appends that itself.
"""

import chz
import numpy as np

from data.errors import UserError
from train.metrics.base import Accumulator, Arrays, Curve, Metric, column

NO_TARGET = "no row had a target"


@chz.chz
class RankingMetric(Metric):
    ks: tuple[int, ...] = chz.field(default=(10,), doc="cut-offs")
    name: str = ""

    @chz.validate
    def _cut_offs(self):
        if any(k < 1 for k in self.ks):
            raise ValueError(f"cut-offs start at 1, got {self.ks}")


class RankAccumulator(Accumulator):
    """Mean over rows with a target of a value per cut-off."""

    def __init__(self, config: RankingMetric, *, names: tuple[str, ...]):
        self.config, self.names = config, names
        self.total, self.rows = np.zeros(len(names)), 0

    def values(self, rank: np.ndarray) -> list[np.ndarray]:
        """One array [b] per name from ranks [b, m] that are 0 where there is no target."""
        raise NotImplementedError(f"{type(self).__name__} does not define values")

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        rank = column(predictions, "rank", what="predictions").astype(np.float64)
        rank = rank[(rank > 0).any(axis=1)]
        if len(rank):
            self.total = self.total + np.array([v.sum() for v in self.values(rank)])
            self.rows += len(rank)

    def merge(self, other: "RankAccumulator") -> None:
        self.total = self.total + other.total
        self.rows += other.rows

    def compute(self) -> dict[str, float]:
        mean = self.total / self.rows if self.rows else np.full(len(self.names), np.nan)
        return dict(zip(self.names, mean.tolist(), strict=True))

    def reasons(self) -> dict[str, str]:
        return {} if self.rows else dict.fromkeys(self.names, NO_TARGET)


def _at(name: str, ks: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{name}@{k}" for k in ks)


def _found(rank: np.ndarray, k: int) -> np.ndarray:
    return (rank > 0) & (rank <= k)


@chz.chz
class HitRate(RankingMetric):
    """Share of rows with at least one target among the first k."""

    name: str = "hit_rate"

    def make(self) -> "HitRateAccumulator":
        return HitRateAccumulator(self, names=_at(self.name, self.ks))


class HitRateAccumulator(RankAccumulator):
    def values(self, rank: np.ndarray) -> list[np.ndarray]:
        return [_found(rank, k).any(axis=1) for k in self.config.ks]


@chz.chz
class Recall(RankingMetric):
    """Share of a row's targets among the first k."""

    name: str = "recall"

    def make(self) -> "RecallAccumulator":
        return RecallAccumulator(self, names=_at(self.name, self.ks))


class RecallAccumulator(RankAccumulator):
    def values(self, rank: np.ndarray) -> list[np.ndarray]:
        targets = (rank > 0).sum(axis=1)
        return [_found(rank, k).sum(axis=1) / targets for k in self.config.ks]


@chz.chz
class NDCG(RankingMetric):
    """Sum over found targets of 1/log2(rank + 1), over that of an ideal list; all targets gain 1."""

    name: str = "ndcg"

    def make(self) -> "NDCGAccumulator":
        return NDCGAccumulator(self, names=_at(self.name, self.ks))


class NDCGAccumulator(RankAccumulator):
    def values(self, rank: np.ndarray) -> list[np.ndarray]:
        targets = (rank > 0).sum(axis=1)
        gain = np.where(rank > 0, 1 / np.log2(np.maximum(rank, 1) + 1), 0.0)
        ideal = np.cumsum(1 / np.log2(np.arange(rank.shape[1]) + 2))
        return [
            (gain * _found(rank, k)).sum(axis=1) / ideal[np.minimum(targets, min(k, len(ideal))) - 1]
            for k in self.config.ks
        ]


@chz.chz
class MRR(RankingMetric):
    """Mean of 1 / rank of the best target, over all ranks and, for each of `ks`, only where it is found."""

    ks: tuple[int, ...] = ()
    name: str = "mrr"

    def make(self) -> "MRRAccumulator":
        return MRRAccumulator(self, names=(self.name, *_at(self.name, self.ks)))


class MRRAccumulator(RankAccumulator):
    def values(self, rank: np.ndarray) -> list[np.ndarray]:
        best = 1 / np.where(rank > 0, rank, np.inf).min(axis=1)
        return [best, *(best * _found(rank, k).any(axis=1) for k in self.config.ks)]


@chz.chz
class MedianRank(Metric):
    """Median over rows of the rank of the best target."""

    name: str = "median_rank"

    def make(self) -> "MedianRankAccumulator":
        return MedianRankAccumulator(self)


class MedianRankAccumulator(Accumulator):
    def __init__(self, config: MedianRank):
        self.config = config
        self._parts: list[np.ndarray] = []

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        rank = column(predictions, "rank", what="predictions").astype(np.float64)
        rank = rank[(rank > 0).any(axis=1)]
        self._parts.append(np.where(rank > 0, rank, np.inf).min(axis=1, initial=np.inf))

    def merge(self, other: "MedianRankAccumulator") -> None:
        self._parts.extend(other._parts)

    def compute(self) -> dict[str, float]:
        ranks = np.concatenate(self._parts) if self._parts else np.zeros(0)
        return {self.config.name: float(np.median(ranks)) if len(ranks) else float("nan")}

    def reasons(self) -> dict[str, str]:
        return {self.config.name: NO_TARGET} if np.isnan(self.compute()[self.config.name]) else {}


class ShownAccumulator(Accumulator):
    """How often each id stands among the first k; a subclass says what that is worth."""

    def __init__(self, config: RankingMetric):
        self.config = config
        self.catalogue = 0
        self.counts: dict[int, dict[int, int]] = {k: {} for k in config.ks}

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        top = column(predictions, "top", what="predictions")
        size = int(column(predictions, "catalogue", what="predictions"))
        if self.catalogue not in (0, size):
            raise UserError(f"the catalogue changed its size from {self.catalogue} to {size} between batches")
        self.catalogue = size
        if top.shape[1] < min(max(self.config.ks), size):
            raise UserError(f"{self.config.name}@{max(self.config.ks)} needs as many results, got {top.shape[1]}")
        for k, counts in self.counts.items():
            ids, times = np.unique(top[:, :k], return_counts=True)
            for item, n in zip(ids.tolist(), times.tolist(), strict=True):
                if item >= 0:
                    counts[item] = counts.get(item, 0) + n

    def merge(self, other: "ShownAccumulator") -> None:
        self.catalogue = self.catalogue or other.catalogue
        for k, counts in self.counts.items():
            for item, n in other.counts[k].items():
                counts[item] = counts.get(item, 0) + n

    def value(self, shown: np.ndarray) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not define value")

    def compute(self) -> dict[str, float]:
        return {
            f"{self.config.name}@{k}": self.value(np.sort(np.fromiter(counts.values(), float)))
            for k, counts in self.counts.items()
        }

    def reasons(self) -> dict[str, str]:
        return {name: "nothing was recommended" for name, value in self.compute().items() if np.isnan(value)}


@chz.chz
class Coverage(RankingMetric):
    """Share of the catalogue that stands among the first k of some row."""

    name: str = "coverage"

    def make(self) -> "CoverageAccumulator":
        return CoverageAccumulator(self)


class CoverageAccumulator(ShownAccumulator):
    def value(self, shown: np.ndarray) -> float:
        return len(shown) / self.catalogue if len(shown) else float("nan")


@chz.chz
class Gini(RankingMetric):
    """Inequality of how often items are recommended, never recommended ones included; 0 is even."""

    name: str = "gini"

    def make(self) -> "GiniAccumulator":
        return GiniAccumulator(self)


class GiniAccumulator(ShownAccumulator):
    def value(self, shown: np.ndarray) -> float:
        if not len(shown):
            return float("nan")
        n = self.catalogue
        place = np.arange(n - len(shown) + 1, n + 1)  # the items never shown hold the first places
        return float(((2 * place - n - 1) * shown).sum() / (n * shown.sum()))

    def curves(self) -> dict[str, Curve]:
        """Share of recommendations (y) that go to the least recommended share of items (x)."""
        out: dict[str, Curve] = {}
        for k, counts in self.counts.items():
            shown = np.zeros(self.catalogue)
            shown[self.catalogue - len(counts) :] = np.sort(np.fromiter(counts.values(), float))
            if shown.sum():
                x = np.linspace(0, 1, 101)
                y = np.interp(x, np.linspace(0, 1, len(shown) + 1), np.append(0, np.cumsum(shown)) / shown.sum())
                out[f"{self.config.name}@{k}"] = {"kind": "lorenz", "x": x.tolist(), "y": y.round(6).tolist()}
        return out
