"""What a space knows by name: rows classified by the nearest class name, and class names as queries for rows."""

from collections.abc import Mapping

import chz
import numpy as np

from data.errors import UserError
from data.pipeline import VALID
from data.sources import SourceConfig
from data.vectors import unit
from train.evaluators import Evaluation, Evaluator, Predict, RankTally, depth
from train.metrics.base import Arrays, Metric, column
from train.metrics.classes import ClassAccuracy, Precision
from train.metrics.ranking import MRR, Recall
from train.metrics.ranks import NO_ITEM, Ranked, positions, rank_blocks, rank_targets, top_k
from train.progress import RowsDone


@chz.chz
class ClassNames(Evaluator):
    """Zero-shot classification and attribute queries, by the same prompts and vectors.

    "<label>/accuracy@1": share of the rows whose class is the one that the nearest prompt names; several prompts of a
    class are averaged. "<label>/query/precision@10": share of a prompt's ten nearest rows that are of its class, mean
    over the classes that have rows. A row whose label is negative is of no class and answers no query; a class without
    a prompt is never found.
    """

    prompts: Mapping[str, SourceConfig] = chz.field(
        doc="by array of the batch whose values they name: rows of words with that array beside them"
    )
    metrics: tuple[Metric, ...] = chz.field(
        default_factory=lambda: (Recall(name="accuracy", ks=(1, 5)), ClassAccuracy(ks=(1,))), doc="of the rows"
    )
    queries: tuple[Metric, ...] = chz.field(
        default_factory=lambda: (Precision(ks=(1, 10)), MRR(ks=(10,))), doc="of the prompts as queries"
    )
    item: str = chz.field(default="item", doc="prediction that is classified and found")
    text: str = chz.field(default="query", doc="prediction that prompts have")
    blend: float = chz.field(
        default=0.0, doc="share of a row's own words in the vector that queries find; KAGL takes 0.1"
    )

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        vectors, found, rows = [], [], []
        wanted = {VALID, *self.prompts, *(s.feature for s in self.slices.values())}
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            for label in self.prompts:
                column(batch, label)
            rows.append({name: value for name, value in batch.items() if name in wanted})
            vectors.append(unit(column(predictions, self.item, what="predictions")))
            own = unit(column(predictions, self.text, what="predictions")) if self.blend else 0.0
            found.append(unit((1 - self.blend) * vectors[-1] + self.blend * own))
        batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        items, blended = np.concatenate(vectors), np.concatenate(found)
        total = Evaluation(values={}, rows=len(items))
        for label, source in self.prompts.items():
            classes, names = self._named(label, source, predict)
            total = total.plus(classify(self, batch, label, vectors=items, names=names, classes=classes).under(label))
            asked = self._asked(batch[label], blended, names=names, classes=classes)
            total = total.plus(asked.under(f"{label}/query"))
        return total

    def _named(self, label: str, source: SourceConfig, predict: Predict) -> tuple[np.ndarray, np.ndarray]:
        """The classes that have a prompt, in order, and a vector of each."""
        values, vectors = [], []
        for batch, predictions in self.rows(source, predict):
            values.append(column(batch, label))
            vectors.append(unit(column(predictions, self.text, what="predictions")))
        classes, which = np.unique(np.concatenate(values), return_inverse=True)
        every = np.concatenate(vectors)
        sums = np.zeros((len(classes), every.shape[1]))
        np.add.at(sums, which, every)
        return classes, unit(sums).astype(np.float32)

    def _asked(self, label: np.ndarray, items: np.ndarray, *, names: np.ndarray, classes: np.ndarray) -> Evaluation:
        tally = RankTally(chz.replace(self, metrics=self.queries, slices={}))
        k = min(depth(self.queries), len(items))
        every = np.ones((1, len(items)), bool)
        for value, name in zip(classes, names, strict=True):
            relevant = label == value
            if not relevant.any():
                continue
            scores = (name.astype(np.float64) @ items.T.astype(np.float64)).astype(np.float32)[None]
            best = np.where(relevant, scores[0], -np.inf).argmax()
            ranked = rank_targets(scores, targets=np.array([[best]]), allowed=~relevant[None], k=0)
            top = top_k(scores, allowed=every, k=k)
            ranked = Ranked(rank=ranked.rank, ties=ranked.ties, top=top)
            shown = {VALID: np.ones(1, bool), "relevant": relevant[top]}
            tally.update(ranked, shown, catalogue=len(items))
        return tally.evaluation()


def classify(
    evaluator: Evaluator, batch: Arrays, label: str, *, vectors: np.ndarray, names: np.ndarray, classes: np.ndarray
) -> Evaluation:
    """The evaluator's metrics of the rank of each row's class, by the products of its vector with those of `names`."""
    known = batch[label] >= 0
    if not known.any():
        raise UserError(f"no row has a class {label!r}: all its values are negative")
    wanted = positions(batch[label][:, None], classes)
    tally = RankTally(evaluator)
    for rows, ranked in rank_blocks(
        vectors, names, wanted, forbidden=None, k=min(depth(evaluator.metrics), len(names))
    ):
        unnamed = (wanted[rows] == NO_ITEM) & known[rows][:, None]
        ranked = Ranked(rank=np.where(unnamed, len(names) + 1, ranked.rank), ties=ranked.ties, top=ranked.top)
        part = {name: value[rows] for name, value in batch.items()}
        tally.update(ranked, {**part, "class": part[label]}, catalogue=len(names))
    return tally.evaluation()
