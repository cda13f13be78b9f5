"""Who took what: pairs of person and listing, without order."""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Categorical, Features
from data.mall.build import build
from data.mall.config import Mall
from data.mall.interests import IdList
from data.mall.readers import MallReaders
from data.sources import InMemory, SourceConfig


@chz.chz
class MallTakers(SourceConfig):
    """In training one row per person and listing viewed or clicked in the training days. In evaluation one per person,
    with `history`, what they took then, and `taken`, as `MallReaders` has it; `item` is the first of these."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Literal["train", "test"] = "train"
    most: int = chz.field(default=20, doc="items of taken")
    cold: bool = chz.field(default=False, doc="as of MallReaders")
    length: int = chz.field(default=100, doc="items of the history that are not shown again")

    def make(self) -> InMemory:
        mall = self.mall
        features = Features(
            all=(
                Categorical(name="user", role="user", rows=FIRST + mall.n_users),
                Categorical(name="item", role="item", rows=FIRST + mall.n_items),
            )
        )
        if self.split == "train":
            log = build(mall).log.actions
            known = log["time"] < mall.period("train")[1]
            pairs = np.unique(np.stack([log["user"][known], log["item"][known]]), axis=1)
            return InMemory({"user": FIRST + pairs[0], "item": FIRST + pairs[1]}, features=features)
        read = MallReaders(mall=mall, split="test", most=self.most, cold=self.cold, length=self.length).make()
        rows = read.source.take(np.arange(len(read)))
        columns = {**rows, "user": FIRST + rows["user"]}
        lists = (IdList(name="taken", length=self.most), IdList(name="history", length=self.length))
        return InMemory(columns, features=features.plus(*lists))
