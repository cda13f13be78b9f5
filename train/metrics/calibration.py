"""Expected calibration error and the bins of a reliability plot."""

from typing import Literal

import chz
import numpy as np

from data.errors import UserError
from train.metrics.auc import ScoreCounts
from train.metrics.base import Accumulator, Arrays, Curve, PointMetric, point_rows


@chz.chz
class ECE(PointMetric):
    """Sum over bins of (n_b / n) |mean prediction - mean label|, and how far predictions overshoot in all.

    Bins hold equal widths of probability [k/bins, (k+1)/bins), or equal counts of rows; equal scores always
    share a bin, so counts are equal only up to ties.
    """

    name: str = "ece"
    bins: int = 15
    binning: Literal["width", "count"] = chz.field(default="width", doc="equal width, or equal count, of the bins")

    def make(self) -> "ECEAccumulator":
        return ECEAccumulator(self)


class ECEAccumulator(Accumulator):
    def __init__(self, config: ECE):
        self.config = config
        self.sums = np.zeros((3, config.bins))  # weight, prediction, label
        self.counts = ScoreCounts()  # equal counts need the whole distribution

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score, label, weight = point_rows(self.config, predictions, batch)
        if not ((score >= 0) & (score <= 1)).all():
            raise UserError(f"ECE needs probabilities, {self.config.score!r} leaves [0, 1]")
        if self.config.binning == "count":
            self.counts.add(score, negative=weight * (1 - label), positive=weight * label)
            return
        score = score.astype(np.float64)
        bins = np.minimum((score * self.config.bins).astype(int), self.config.bins - 1)
        for row, value in zip(self.sums, (weight, weight * score, weight * label), strict=True):
            row += np.bincount(bins, weights=value, minlength=self.config.bins)

    def merge(self, other: "ECEAccumulator") -> None:
        self.sums = self.sums + other.sums
        self.counts.merge(other.counts)

    def _bins(self) -> np.ndarray:
        """Weight, mean prediction and mean label of each bin that holds anything: [3, bins]."""
        sums = self.sums
        if self.config.binning == "count":
            score, negative, positive = self.counts.compact()
            weight = negative + positive
            middle = (np.cumsum(weight) - 0.5 * weight) / max(weight.sum(), 1e-300)
            bins = np.minimum((middle * self.config.bins).astype(int), self.config.bins - 1)
            parts = (weight, weight * score.astype(np.float64), positive)
            sums = np.stack([np.bincount(bins, weights=v, minlength=self.config.bins) for v in parts])
        sums = sums[:, sums[0] > 0]
        return np.stack((sums[0], sums[1] / sums[0], sums[2] / sums[0]))

    def compute(self) -> dict[str, float]:
        weight, predicted, observed = self._bins()
        name = self.config.name
        if not len(weight):
            return {name: float("nan"), f"{name}/ratio": float("nan")}
        error = (weight * np.abs(predicted - observed)).sum() / weight.sum()
        positives = (weight * observed).sum()
        ratio = (weight * predicted).sum() / positives if positives > 0 else float("nan")
        return {name: float(error), f"{name}/ratio": float(ratio)}

    def reasons(self) -> dict[str, str]:
        empty = not len(self._bins()[0])
        why = "no row was seen" if empty else "no positive was seen"
        return {name: why for name, value in self.compute().items() if np.isnan(value)}

    def curves(self) -> dict[str, Curve]:
        weight, predicted, observed = self._bins()
        if not len(weight):
            return {}
        x, y, count = (row.round(6).tolist() for row in (predicted, observed, weight))
        return {self.config.name: {"kind": "reliability", "x": x, "y": y, "count": count, "bins": self.config.binning}}
