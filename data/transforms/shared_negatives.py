"""Negatives that all positions of a batch share, from a mixture of all tokens and the frequent ones."""

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Features
from data.sources import Rows, Source
from data.transforms.base import Bound, Transform
from data.transforms.history import Ids
from data.transforms.negatives import Rates, count


@chz.chz
class SharedNegatives(Transform):
    """`negatives` [b, n] and their `negatives/logq`: b·n tokens for the whole batch, a token with probability
    u / V + (1 - u) log(1 + count) / Σ log(1 + count) over those seen."""

    items: str = chz.field(default="history", doc="feature of the source whose ids are counted and drawn")
    count: int = chz.field(default=4, doc="of each row")
    uniform: float = chz.field(default=0.5, doc="u, the share drawn evenly")

    def features(self, features: Features) -> Features:
        return features.plus(Ids(name="negatives", width=self.count), Rates(name="negatives/logq", width=self.count))

    def bind(self, source: Source) -> Bound:
        return _Shared(self, counts=count(source, self.items))


class _Shared:
    def __init__(self, config: SharedNegatives, *, counts: np.ndarray):
        self.config = config
        known = np.flatnonzero(counts > 0)
        self.known = known[known >= FIRST]
        if not len(self.known):
            raise UserError(f"SharedNegatives: no row has any {config.items!r}")
        weight = np.log1p(counts[self.known].astype(np.float64))
        self.share = config.uniform / len(self.known) + (1 - config.uniform) * weight / weight.sum()
        self.total = np.cumsum(self.share)

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        rows = len(next(iter(batch.values())))
        drawn = np.searchsorted(self.total, rng.random((rows, self.config.count)) * self.total[-1], side="right")
        drawn = np.minimum(drawn, len(self.known) - 1)
        logq = np.log(self.share[drawn]).astype(np.float32)
        return {**batch, "negatives": self.known[drawn].astype(np.int32), "negatives/logq": logq}
