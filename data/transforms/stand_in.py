"""What nobody took yet asks in the name of what it is most like."""

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST
from data.mall.vectors import read_vectors
from data.pairs import closest
from data.sources import Rows, Source, SourceConfig
from data.splits import column
from data.transforms.base import Bound, Transform


@chz.chz
class StandIn(Transform):
    """Ids of `feature` that `seen` does not show become the most alike of those that it does, where they have vectors.

    The augmentation at inference of Kvernadze et al., arXiv 2211.14982: an unseen product has its neighbour's list.
    """

    seen: SourceConfig = chz.field(doc="the pairs of training")
    vectors: str = chz.field(doc="npz or parquet file of item vectors, such as @items/vectors.npz")
    feature: str = "given"

    def bind(self, source: Source) -> Bound:
        rows = source.features[self.feature].size
        ids = np.unique(column(self.seen.make(), self.feature))
        ids = ids[ids >= FIRST]
        if not len(ids) or ids.max() >= rows:
            raise UserError(f"StandIn: `seen` shows no {self.feature!r} of this source's {rows} rows")
        known = np.zeros(rows, bool)
        known[ids] = True
        alike = closest(read_vectors(self.vectors, rows=rows), count=1, among=known)[:, 0]
        return _StandIn(self.feature, instead=np.where(known | (alike < FIRST), np.arange(rows), alike))


class _StandIn:
    def __init__(self, feature: str, *, instead: np.ndarray):
        self.feature, self.instead = feature, instead

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        ids = batch[self.feature]
        return {**batch, self.feature: self.instead[ids].astype(ids.dtype)}
