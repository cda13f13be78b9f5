"""Click rows that know how well their item was known when training ended: to measure on the tail, not to learn from."""

import chz
import numpy as np

from data.features import FIRST, Truth
from data.mall.build import build
from data.mall.sources import MallNewcomers, WithHistory

UNKNOWN_YET = -1


@chz.chz
class MallTail(MallNewcomers):
    """Rows of `MallNewcomers` with the truth `train_clicks`: clicks of the item in the training days, and -1 where it
    arrived later."""

    def make(self) -> WithHistory:
        source = super().make()
        built, end = build(self.mall), self.mall.period("train")[1]
        shown = built.log.impressions
        clicked = shown["item"][shown["click"] & (shown["time"] < end)]
        count = np.bincount(clicked, minlength=self.mall.n_items)
        count[built.shop.arrival >= end] = UNKNOWN_YET
        source.columns["train_clicks"] = count[source.columns["item"] - FIRST].astype(np.float32)
        source.features = source.features.plus(Truth(name="train_clicks"))
        return source
