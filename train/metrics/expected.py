"""Metrics against the true probability of a simulation, in expectation over labels that nobody drew."""

import chz
import numpy as np

from data.errors import UserError
from train.metrics.auc import ScoreCounts
from train.metrics.base import Accumulator, Arrays, Metric, column


@chz.chz
class ExpectedAUC(Metric):
    """The AUC that `score` has on average if each row's label is drawn from `truth`.

    So a conversion rate can be judged on impressions that were never clicked.
    """

    truth: str = chz.field(doc="array of the batch with the true probability")
    score: str = chz.field(default="score", doc="array of the predictions")
    name: str = "auc/expected"

    def make(self) -> "ExpectedAUCAccumulator":
        return ExpectedAUCAccumulator(self)


class ExpectedAUCAccumulator(Accumulator):
    def __init__(self, config: ExpectedAUC):
        self.config = config
        self.counts = ScoreCounts()
        self.own = 0.0  # weight of the pairs of a row with itself, which are not pairs

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score = column(predictions, self.config.score, what="predictions")
        truth = column(batch, self.config.truth).astype(np.float64)
        if not ((truth >= 0) & (truth <= 1)).all():
            raise UserError(f"{self.config.truth!r} must hold probabilities, it leaves [0, 1]")
        if not np.isfinite(score).all():
            raise UserError(f"{self.config.score!r} is not finite")
        self.counts.add(score, negative=1.0 - truth, positive=truth)
        self.own += float((truth * (1.0 - truth)).sum())

    def merge(self, other: "ExpectedAUCAccumulator") -> None:
        self.counts.merge(other.counts)
        self.own += other.own

    def compute(self) -> dict[str, float]:
        _, negative, positive = self.counts.compact()
        pairs = negative.sum() * positive.sum()
        if not pairs - self.own > 0:
            return {self.config.name: float("nan")}
        return {self.config.name: float((self.counts.auc() * pairs - 0.5 * self.own) / (pairs - self.own))}

    def reasons(self) -> dict[str, str]:
        return {name: self.counts.why() for name, value in self.compute().items() if np.isnan(value)}
