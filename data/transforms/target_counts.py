"""How often training saw the item sought: for slices of an evaluation, not to learn from."""

import chz
import numpy as np

from data.features import Features, Truth
from data.sources import Rows, Source, SourceConfig
from data.transforms.base import Bound, Transform
from data.whole_histories import sequences_of


@chz.chz
class TargetCounts(Transform):
    """Adds the truth `target_count`: occurrences of the row's target among the histories and targets of `seen`.

    0 is an item that training never saw. Slices by the length of the history need no transform: `history/length`.
    """

    seen: SourceConfig = chz.field(doc="the rows of training")
    target: str = chz.field(default="target", doc="label with the item sought")
    history: str = chz.field(default="history", doc="sequence of item ids")

    def features(self, features: Features) -> Features:
        return features.plus(Truth(name="target_count"))

    def bind(self, source: Source) -> Bound:
        items, _ = sequences_of(self.seen, history=self.history, target=self.target)
        return _Counts(self.target, np.bincount(items, minlength=source.features[self.history].size))


class _Counts:
    def __init__(self, target: str, counts: np.ndarray):
        self.target, self.counts = target, counts.astype(np.float32)

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        return {**batch, "target_count": self.counts[batch[self.target]]}
