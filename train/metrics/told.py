"""Tokens that a model told against those that it should have."""

import chz
import numpy as np

from train.metrics.base import Accumulator, Arrays, Metric, column


@chz.chz
class Told(Metric):
    """Share of the label's tokens that stand at their place in what was told."""

    label: str = chz.field(default="topics", doc="array [b, k] of the batch")
    told: str = chz.field(default="told", doc="array [b, k] of the predictions")
    name: str = "told"

    def make(self) -> "ToldAccumulator":
        return ToldAccumulator(self)


class ToldAccumulator(Accumulator):
    def __init__(self, config: Told):
        self.config, self.right, self.count = config, 0, 0

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        told, label = column(predictions, self.config.told, what="predictions"), column(batch, self.config.label)
        self.right += int((told == label).sum())
        self.count += label.size

    def merge(self, other: "ToldAccumulator") -> None:
        self.right += other.right
        self.count += other.count

    def compute(self) -> dict[str, float]:
        return {self.config.name: self.right / self.count if self.count else np.nan}

    def reasons(self) -> dict[str, str]:
        return {} if self.count else {self.config.name: "no row was seen"}
