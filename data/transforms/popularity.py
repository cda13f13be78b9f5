"""How well known an item is, beside its rows: to measure on the tail, not to learn from."""

import chz
import numpy as np

from data.features import FIRST, Features, Truth
from data.sources import Rows, Source, SourceConfig
from data.transforms.base import Bound, Transform
from data.transforms.negatives import count


@chz.chz
class Popularity(Transform):
    """Adds the truth `<item>_popularity`: the share of the catalogue that `seen` shows less often than the row's item.

    A slice below 0.5 is the tail: items of the less popular half. Items without a row in `seen` are of the catalogue.
    """

    seen: SourceConfig = chz.field(doc="the rows of training")
    item: str = chz.field(default="item", doc="categorical feature of both")

    def features(self, features: Features) -> Features:
        return features.plus(Truth(name=f"{self.item}_popularity"))

    def bind(self, source: Source) -> Bound:
        counts = count(self.seen.make(), self.item)
        known = np.sort(counts[FIRST:])
        share = np.searchsorted(known, counts, side="left") / max(len(known), 1)
        return _Popularity(self.item, share.astype(np.float32))


class _Popularity:
    def __init__(self, item: str, share: np.ndarray):
        self.item, self.share = item, share

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        return {**batch, f"{self.item}_popularity": self.share[batch[self.item]]}
