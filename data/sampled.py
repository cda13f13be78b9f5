"""A source with a share of its negatives left out, for click logs that are nearly all negatives."""

import chz
import numpy as np

from data.errors import UserError
from data.sources import SourceConfig
from data.splits import View, column, shared


@chz.chz
class KeepNegatives(SourceConfig):
    """Every positive and a random share of the other rows; give the task the same share, which corrects for it."""

    source: SourceConfig
    share: float = chz.field(doc="of the negatives that stay")
    label: str = "click"
    seed: int = 0

    @chz.validate
    def _share_is_one(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; give a share above 0, at most 1")

    def make(self) -> View:
        source = shared(self.source)
        label = column(source, self.label)
        odd = label[(label != 0) & (label != 1)]
        if len(odd):
            raise UserError(f"negatives are rows whose {self.label!r} is 0, but it holds {odd[0]:g}")
        drawn = np.random.default_rng(self.seed).random(len(label))
        return View(source, np.flatnonzero((label == 1) | (drawn < self.share)))
