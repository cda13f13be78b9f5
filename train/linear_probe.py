"""How much of a class a linear map reads from frozen vectors, from few examples or from all."""

import chz
import numpy as np

from data.errors import UserError
from data.sources import SourceConfig
from data.vectors import unit
from train.class_names import classify
from train.evaluators import Evaluation, Evaluator, Predict
from train.metrics.base import Metric, column
from train.metrics.classes import ClassAccuracy
from train.metrics.ranking import Recall
from train.progress import RowsDone


@chz.chz
class LinearProbe(Evaluator):
    """Ridge regression on class indicators, in closed form, fitted on `support` and measured on `source`.

    "<label>/accuracy@1" is the mean over `draws` choices of `shots` rows a class; rows of negative label are of none.
    """

    support: SourceConfig = chz.field(doc="rows to learn from")
    labels: tuple[str, ...] = chz.field(doc="arrays of both sources with a class per row, each a probe of its own")
    metrics: tuple[Metric, ...] = chz.field(
        default_factory=lambda: (Recall(name="accuracy", ks=(1,)), ClassAccuracy(ks=(1,)))
    )
    vector: str = chz.field(default="item", doc="prediction that is probed")
    shots: int | None = chz.field(default=5, doc="rows of a class to learn from; None: all")
    ridge: float = chz.field(default=0.01, doc="strength, of vectors of length 1 and per row")
    draws: int = chz.field(default=5, doc="choices of those rows, where shots leaves a choice")
    seed: int = 0

    @chz.validate
    def _check(self) -> None:
        if (self.shots is not None and self.shots < 1) or self.ridge <= 0 or self.draws < 1:
            raise ValueError("shots and draws must be positive, and ridge above 0")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        (known, fitted), (asked, vectors) = (
            self._vectors(source, predict, progress=shown)
            for source, shown in ((self.support, None), (self.source, progress))
        )
        total = Evaluation(values={}, rows=len(vectors))
        for label in self.labels:
            found = [
                classify(self, asked, label, vectors=_with_one(vectors), names=weights.T, classes=classes)
                for classes, weights in self._fits(label, known[label], fitted)
            ]
            mean = {name: float(np.mean([one.values[name] for one in found])) for name in found[0].values}
            total = total.plus(Evaluation(values=mean, reasons=found[0].reasons).under(label))
        return total

    def _vectors(self, source: SourceConfig, predict: Predict, *, progress: RowsDone | None):
        batches, vectors = [], []
        for batch, predictions in self.rows(source, predict, progress=progress):
            for label in self.labels:
                column(batch, label)
            batches.append({name: value for name, value in batch.items() if value.ndim == 1})
            vectors.append(unit(column(predictions, self.vector, what="predictions")))
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}, np.concatenate(vectors)

    def _fits(self, label: str, values: np.ndarray, vectors: np.ndarray):
        """Classes and weights of each draw."""
        rng = np.random.default_rng(self.seed)
        if not (values >= 0).any():
            raise UserError(f"LinearProbe finds no class {label!r} in its support: all its values are negative")
        for _ in range(1 if self.shots is None else self.draws):
            order = rng.permutation(len(values))
            order = order[values[order] >= 0]
            chosen = order[_number_within(values[order]) < (self.shots or len(order))]
            classes, which = np.unique(values[chosen], return_inverse=True)
            yield classes, ridge(vectors[chosen], which, classes=len(classes), strength=self.ridge)


def ridge(x: np.ndarray, which: np.ndarray, *, classes: int, strength: float) -> np.ndarray:
    """[d + 1, classes]: the minimum of |[x 1] w - y|^2 / n + strength |w|^2 of one-hot y, the offset unpenalised."""
    x, y = x.astype(np.float64), np.eye(classes)[which]
    middle, mean = x.mean(axis=0), y.mean(axis=0)
    centred = x - middle
    gram = centred.T @ centred + strength * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (y - mean))
    return np.concatenate([weights, (mean - middle @ weights)[None]])


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def _number_within(values: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... of each row among those of equal value before it."""
    order = np.argsort(values, kind="stable")
    _, start, count = np.unique(values[order], return_index=True, return_counts=True)
    out = np.empty(len(values), np.int64)
    out[order] = np.arange(len(values)) - np.repeat(start, count)
    return out
