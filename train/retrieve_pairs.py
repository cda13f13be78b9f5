"""Retrieval by a model that scores pairs: every query with every item, of as many rows as that is affordable for."""

import chz
import numpy as np

from data.pipeline import VALID, Loader
from train.evaluators import Evaluation, Evaluator, Predict, RankTally, depth
from train.metrics.base import Arrays, column
from train.metrics.ranks import rank_targets
from train.progress import RowsDone


@chz.chz
class RetrievePairs(Evaluator):
    """For each row's query features ranks the item features of `rows` rows of different keys, evenly spread.

    The score of a pair is predictions["score"]. From items to queries as "reverse/<metric>".
    """

    query: tuple[str, ...] = chz.field(default=("title", "title/length"), doc="arrays of who asks")
    item: tuple[str, ...] = chz.field(default=("image",), doc="arrays of what is found")
    key: str = chz.field(default="spu", doc="array by which the rows differ")
    rows_compared: int = chz.field(default=100, doc="queries, and items; a pass scores its square")
    score: str = "score"

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        batch = self._chosen()
        count = len(batch[self.key])
        pairs = np.stack(np.divmod(np.arange(count * count), count), axis=1)
        scores = np.empty(count * count, np.float32)
        for start in range(0, len(pairs), self.batch_size):
            # The last batch is filled with its first pair, so that one program serves all.
            at = pairs[start : start + self.batch_size]
            full = np.concatenate([at, np.repeat(at[:1], self.batch_size - len(at), axis=0)])
            asked = {name: column(batch, name)[full[:, 0]] for name in self.query}
            found = {name: column(batch, name)[full[:, 1]] for name in self.item}
            scored = column(predict({**asked, **found}), self.score, what="predictions")
            scores[start : start + len(at)] = scored[: len(at)]
            if progress is not None:
                progress(min(start + self.batch_size, len(pairs)), len(pairs))
        square = scores.reshape(count, count)
        back = chz.replace(self, slices={})
        return self._ranked(self, square, batch).plus(self._ranked(back, square.T, batch).under("reverse"))

    def _chosen(self) -> Arrays:
        wanted = {*self.query, *self.item, self.key, VALID, *(s.feature for s in self.slices.values())}
        batches = [
            {name: value[batch[VALID].astype(bool)] for name, value in batch.items() if name in wanted}
            for batch in Loader(batch_size=self.batch_size, transforms=self.transforms).once(self.source.make())
        ]
        whole = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        _, first = np.unique(column(whole, self.key), return_index=True)
        first = np.sort(first)
        kept = first[np.unique(np.linspace(0, len(first) - 1, self.rows_compared).astype(int))]
        return {name: value[kept] for name, value in whole.items()}

    @staticmethod
    def _ranked(evaluator: Evaluator, scores: np.ndarray, batch: Arrays) -> Evaluation:
        tally, count = RankTally(evaluator), len(scores)
        ranked = rank_targets(
            scores, targets=np.arange(count)[:, None], allowed=np.ones_like(scores, bool), k=depth(evaluator.metrics)
        )
        tally.update(ranked, batch, catalogue=count)
        return tally.evaluation()
