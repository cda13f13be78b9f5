"""Metrics of classes: how many of a query's first results are of its class, and accuracy in which classes weigh alike.

Beside the arrays of `ranking` an evaluator gives them
  relevant [b, K]  whether each of the best candidates is of the query's class
  class [b]        the row's own class
"""

import chz
import numpy as np

from data.errors import UserError
from train.metrics.base import Accumulator, Arrays, column
from train.metrics.ranking import NO_TARGET, RankAccumulator, RankingMetric


@chz.chz
class Precision(RankingMetric):
    """Share of the first k results that are relevant; a query of fewer relevant items than k cannot reach 1."""

    name: str = "precision"

    def make(self) -> "PrecisionAccumulator":
        return PrecisionAccumulator(self, names=tuple(f"{self.name}@{k}" for k in self.ks))


class PrecisionAccumulator(RankAccumulator):
    def update(self, predictions: Arrays, batch: Arrays) -> None:
        relevant = column(batch, "relevant").astype(bool)
        if relevant.shape[1] < max(self.config.ks) and relevant.shape[1] < int(predictions["catalogue"]):
            raise UserError(f"{self.config.name}@{max(self.config.ks)} needs as many results, got {relevant.shape[1]}")
        rows = (column(predictions, "rank", what="predictions") > 0).any(axis=1)
        self.total = self.total + np.array([relevant[rows, :k].sum() / k for k in self.config.ks])
        self.rows += int(rows.sum())


@chz.chz
class ClassAccuracy(RankingMetric):
    """Mean over classes of the share of their rows whose class is among the first k."""

    name: str = "class_accuracy"

    def make(self) -> "ClassAccuracyAccumulator":
        return ClassAccuracyAccumulator(self)


class ClassAccuracyAccumulator(Accumulator):
    def __init__(self, config: ClassAccuracy):
        self.config = config
        self.found: dict[int, np.ndarray] = {}  # by class: rows, then rows found by each k

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        rank = column(predictions, "rank", what="predictions").max(axis=1)
        label = column(batch, "class")
        for value in np.unique(label[rank > 0]).tolist():
            mine = rank[(label == value) & (rank > 0)]
            counts = np.array([len(mine), *((mine <= k).sum() for k in self.config.ks)], np.float64)
            self.found[value] = self.found.get(value, 0.0) + counts

    def merge(self, other: "ClassAccuracyAccumulator") -> None:
        for value, counts in other.found.items():
            self.found[value] = self.found.get(value, 0.0) + counts

    def compute(self) -> dict[str, float]:
        shares = [counts[1:] / counts[0] for counts in self.found.values()]
        mean = np.mean(shares, axis=0) if shares else np.full(len(self.config.ks), np.nan)
        return {f"{self.config.name}@{k}": float(v) for k, v in zip(self.config.ks, mean, strict=True)}

    def reasons(self) -> dict[str, str]:
        return {} if self.found else dict.fromkeys(self.compute(), NO_TARGET)
