"""Areas under curves, exact: distinct scores with their weights of positives and negatives are kept and merged."""

import chz
import numpy as np

from data.errors import UserError
from train.metrics.base import Accumulator, Arrays, Curve, PointMetric, column, point_rows

ONE_CLASS, NO_ROWS = "only one class of labels was seen", "no row was seen"
COMPACT = 1 << 21  # rows held before equal scores are merged
POINTS = 400  # of a curve that is kept for a plot


class ScoreCounts:
    """Weight of negatives and positives by distinct score, ascending once compacted.

    Memory grows with distinct scores. `bits` bounds it: scores become float32 whose lowest `32 - bits` bits are
    cleared, so that scores closer than 2^(9 - bits) of their size tie; the error is at most half the share of
    (positive, negative) pairs tied so, about 1e-6 for 24 bits.
    """

    def __init__(self, *, bits: int | None = None):
        if bits is not None and not 10 <= bits <= 32:
            raise UserError(f"bits must lie between 10 and 32, got {bits}")
        self.mask = None if bits is None else np.uint32((0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._held = 0
        self._limit = COMPACT
        self._compacted = False

    def add(self, score: np.ndarray, *, negative: np.ndarray, positive: np.ndarray) -> None:
        if self.mask is not None:
            score = (score.astype(np.float32).view(np.uint32) & self.mask).view(np.float32)
        self._parts.append((score, negative, positive))
        self._held += len(score)
        self._compacted = False
        if self._held > self._limit:
            self.compact()
            self._limit = max(COMPACT, 2 * self._held)

    def merge(self, other: "ScoreCounts") -> None:
        for part in other._parts:
            self.add(part[0], negative=part[1], positive=part[2])

    def compact(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distinct scores, their negatives, their positives."""
        if not self._parts:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        if self._compacted:
            return self._parts[0]
        score, negative, positive = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(score)
        score = score[order]
        starts = np.flatnonzero(np.concatenate(([True], score[1:] != score[:-1]))) if len(score) else np.zeros(0, int)
        if len(score):
            negative = np.add.reduceat(negative[order], starts)
            positive = np.add.reduceat(positive[order], starts)
        self._parts = [(score[starts], negative, positive)]
        self._held, self._compacted = len(starts), True
        return self._parts[0]

    def why(self) -> str:
        """Why a figure of these counts is missing."""
        return ONE_CLASS if self._held else NO_ROWS

    def auc(self) -> float:
        """Chance that a positive scores above a negative, ties counted half; NaN for one class."""
        _, negative, positive = self.compact()
        below = np.cumsum(negative) - negative
        pairs = negative.sum() * positive.sum()
        return float((positive * (below + 0.5 * negative)).sum() / pairs) if pairs > 0 else float("nan")

    def average_precision(self) -> float:
        """Sum over falling thresholds of precision times the gain in recall; NaN without positives."""
        _, negative, positive = self.compact()
        hits, shown = np.cumsum(positive[::-1]), np.cumsum((positive + negative)[::-1])
        if not positive.sum() > 0:
            return float("nan")
        precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
        return float((precision * positive[::-1]).sum() / positive.sum())


def _thin(*columns: np.ndarray) -> list[list[float]]:
    """At most POINTS entries of each column, ends included."""
    take = np.unique(np.linspace(0, len(columns[0]) - 1, POINTS).round().astype(int))
    return [column[take].round(6).tolist() for column in columns]


@chz.chz
class AUC(PointMetric):
    """Area under the ROC curve, average ranks for ties, as scikit-learn."""

    name: str = "auc"
    bits: int | None = chz.field(default=None, doc="None: exact; else see ScoreCounts")

    def make(self) -> "AUCAccumulator":
        return AUCAccumulator(self)


class AUCAccumulator(Accumulator):
    def __init__(self, config: AUC):
        self.config = config
        self.counts = ScoreCounts(bits=config.bits)

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score, label, weight = point_rows(self.config, predictions, batch)
        self.counts.add(score, negative=weight * (1 - label), positive=weight * label)

    def merge(self, other: "AUCAccumulator") -> None:
        self.counts.merge(other.counts)

    def compute(self) -> dict[str, float]:
        return {self.config.name: self.counts.auc()}

    def reasons(self) -> dict[str, str]:
        return {self.config.name: self.counts.why()} if np.isnan(self.counts.auc()) else {}

    def curves(self) -> dict[str, Curve]:
        _, negative, positive = self.counts.compact()
        if not (negative.sum() > 0 and positive.sum() > 0):
            return {}
        false = np.concatenate(([0.0], np.cumsum(negative[::-1]) / negative.sum()))
        true = np.concatenate(([0.0], np.cumsum(positive[::-1]) / positive.sum()))
        x, y = _thin(false, true)
        return {self.config.name: {"kind": "roc", "x": x, "y": y}}


@chz.chz
class PRAUC(PointMetric):
    """Average precision: the step-wise area under the precision-recall curve, as scikit-learn."""

    name: str = "pr_auc"
    bits: int | None = None

    def make(self) -> "PRAUCAccumulator":
        return PRAUCAccumulator(self)


class PRAUCAccumulator(Accumulator):
    def __init__(self, config: PRAUC):
        self.config = config
        self.counts = ScoreCounts(bits=config.bits)

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score, label, weight = point_rows(self.config, predictions, batch)
        self.counts.add(score, negative=weight * (1 - label), positive=weight * label)

    def merge(self, other: "PRAUCAccumulator") -> None:
        self.counts.merge(other.counts)

    def compute(self) -> dict[str, float]:
        return {self.config.name: self.counts.average_precision()}

    def reasons(self) -> dict[str, str]:
        return {self.config.name: self.counts.why()} if np.isnan(self.counts.average_precision()) else {}

    def curves(self) -> dict[str, Curve]:
        _, negative, positive = self.counts.compact()
        if not positive.sum() > 0:
            return {}
        hits, shown = np.cumsum(positive[::-1]), np.cumsum((positive + negative)[::-1])
        x, y = _thin(hits / positive.sum(), np.divide(hits, shown, out=np.ones_like(hits), where=shown > 0))
        rate = float(positive.sum() / (positive.sum() + negative.sum()))
        return {self.config.name: {"kind": "pr", "x": x, "y": y, "base": rate}}


@chz.chz
class PossibleAUC(PointMetric):
    """How much of the AUC that is possible the model has, where a simulation gives the true probability.

    `possible`: AUC of the truth on the same rows and labels. `possible/expected`: the same in expectation over
    labels, free of their noise. `lift`: (AUC - 1/2) / (possible - 1/2), 1 being all that can be had.
    """

    truth: str = chz.field(doc="array of the batch with the true probability")
    name: str = "auc"

    def make(self) -> "PossibleAUCAccumulator":
        return PossibleAUCAccumulator(self)


class PossibleAUCAccumulator(Accumulator):
    def __init__(self, config: PossibleAUC):
        self.config = config
        self.model, self.truth, self.expected = ScoreCounts(), ScoreCounts(), ScoreCounts()
        self.own = 0.0  # weight of the pairs of a row with itself, which are not pairs

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score, label, weight = point_rows(self.config, predictions, batch)
        truth = column(batch, self.config.truth).astype(np.float64)
        if self.config.where is not None:
            truth = truth[column(batch, self.config.where) != 0]
        if not ((truth >= 0) & (truth <= 1)).all():
            raise UserError(f"{self.config.truth!r} must hold probabilities, it leaves [0, 1]")
        for counts, value in ((self.model, score), (self.truth, truth)):
            counts.add(value, negative=weight * (1 - label), positive=weight * label)
        self.expected.add(truth, negative=weight * (1 - truth), positive=weight * truth)
        self.own += float((weight * weight * truth * (1 - truth)).sum())

    def merge(self, other: "PossibleAUCAccumulator") -> None:
        self.model.merge(other.model)
        self.truth.merge(other.truth)
        self.expected.merge(other.expected)
        self.own += other.own

    def _expected(self) -> float:
        _, negative, positive = self.expected.compact()
        pairs = negative.sum() * positive.sum()
        if not pairs - self.own > 0:
            return float("nan")
        return float((self.expected.auc() * pairs - 0.5 * self.own) / (pairs - self.own))

    def compute(self) -> dict[str, float]:
        possible, auc = self.truth.auc(), self.model.auc()
        lift = (auc - 0.5) / (possible - 0.5) if possible != 0.5 else float("nan")
        name = self.config.name
        return {f"{name}/possible": possible, f"{name}/possible/expected": self._expected(), f"{name}/lift": lift}

    def reasons(self) -> dict[str, str]:
        why = self.truth.why() if np.isnan(self.truth.auc()) else "the truth does not rank"
        return {name: why for name, value in self.compute().items() if np.isnan(value)}
