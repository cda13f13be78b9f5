"""Means over rows of what a score costs against its label."""

from typing import Any

import chz
import numpy as np

from train.metrics.auc import NO_ROWS, ONE_CLASS
from train.metrics.base import Accumulator, Arrays, PointMetric, point_rows

CLIP = 1e-7  # as BARS clips probabilities


class MeanAccumulator(Accumulator):
    """Weighted mean of `cost(score, label)`; a subclass of the config says what it is called."""

    binary = True

    def __init__(self, config: PointMetric, *, name: str):
        self.config, self.name = config, name
        self.total = self.weight = 0.0

    def cost(self, score: np.ndarray, label: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not define cost")

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score, label, weight = point_rows(self.config, predictions, batch, binary=self.binary)
        self.total += float((weight * self.cost(score.astype(np.float64), label)).sum())
        self.weight += float(weight.sum())

    def merge(self, other: Any) -> None:
        self.total += other.total
        self.weight += other.weight

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight > 0 else float("nan")

    def compute(self) -> dict[str, float]:
        return {self.name: self.mean}

    def reasons(self) -> dict[str, str]:
        return {} if self.weight > 0 else {self.name: NO_ROWS}


def log_loss(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Cost of probability `score`, clipped to [1e-7, 1 - 1e-7]."""
    p = np.clip(score, CLIP, 1 - CLIP)
    return -(label * np.log(p) + (1 - label) * np.log1p(-p))


@chz.chz
class LogLoss(PointMetric):
    """Mean cross-entropy in nats of a predicted probability."""

    name: str = "logloss"

    def make(self) -> "LogLossAccumulator":
        return LogLossAccumulator(self, name=self.name)


class LogLossAccumulator(MeanAccumulator):
    def cost(self, score: np.ndarray, label: np.ndarray) -> np.ndarray:
        return log_loss(score, label)


@chz.chz
class Brier(PointMetric):
    """Mean squared distance of a predicted probability from the label."""

    name: str = "brier"

    def make(self) -> "SquareAccumulator":
        return SquareAccumulator(self, name=self.name)


class SquareAccumulator(MeanAccumulator):
    def cost(self, score: np.ndarray, label: np.ndarray) -> np.ndarray:
        return (score - label) ** 2


@chz.chz
class Accuracy(PointMetric):
    """Share of rows on the right side of `threshold`."""

    name: str = "accuracy"
    threshold: float = 0.5

    def make(self) -> "AccuracyAccumulator":
        return AccuracyAccumulator(self, name=self.name)


class AccuracyAccumulator(MeanAccumulator):
    config: Accuracy

    def cost(self, score: np.ndarray, label: np.ndarray) -> np.ndarray:
        return ((score >= self.config.threshold) == (label == 1)).astype(np.float64)


@chz.chz
class RMSE(PointMetric):
    """Root mean squared error against a real label."""

    name: str = "rmse"

    def make(self) -> "RMSEAccumulator":
        return RMSEAccumulator(self, name=self.name)


class RMSEAccumulator(SquareAccumulator):
    binary = False

    def compute(self) -> dict[str, float]:
        return {self.name: float(np.sqrt(self.mean))}


@chz.chz
class MAE(PointMetric):
    """Mean absolute error against a real label."""

    name: str = "mae"

    def make(self) -> "MAEAccumulator":
        return MAEAccumulator(self, name=self.name)


class MAEAccumulator(MeanAccumulator):
    binary = False

    def cost(self, score: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.abs(score - label)


@chz.chz
class NormalisedEntropy(PointMetric):
    """Log loss over the entropy of the base rate (He et al., ADKDD 2014); 1 is what the mean alone gets."""

    name: str = "ne"

    def make(self) -> "NormalisedEntropyAccumulator":
        return NormalisedEntropyAccumulator(self, name=self.name)


class NormalisedEntropyAccumulator(LogLossAccumulator):
    def __init__(self, config: NormalisedEntropy, *, name: str):
        super().__init__(config, name=name)
        self.positive = 0.0

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        super().update(predictions, batch)
        _, label, weight = point_rows(self.config, predictions, batch)
        self.positive += float((weight * label).sum())

    def merge(self, other: Any) -> None:
        super().merge(other)
        self.positive += other.positive

    def compute(self) -> dict[str, float]:
        rate = self.positive / self.weight if self.weight > 0 else 0.0
        if not 0 < rate < 1:
            return {self.name: float("nan")}
        return {self.name: self.mean / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))}

    def reasons(self) -> dict[str, str]:
        return super().reasons() if not self.weight > 0 or 0 < self.positive < self.weight else {self.name: ONE_CLASS}
