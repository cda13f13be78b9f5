"""What was taken in the mall, a row for each item: purchases by basket, or clicks by user."""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Categorical, Features, Group, Time
from data.mall.build import after, build
from data.mall.config import Mall
from data.mall.sources import Split
from data.sources import InMemory, SourceConfig


@chz.chz
class MallTaken(SourceConfig):
    """`basket` numbers the baskets of purchases; of clicks it is the user, whose sessions a gap in time divides."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    what: Literal["purchases", "clicks"] = "purchases"

    def make(self) -> InMemory:
        if self.what == "purchases":
            rows = after(self.mall)["purchases"]
            basket = np.unique(rows["basket"], return_inverse=True)[1]
        else:
            rows = build(self.mall).log.actions
            rows = {name: values[rows["click"]] for name, values in rows.items()}
            basket = rows["user"]
        start, end = self.mall.period(self.split)
        keep = (rows["time"] >= start) & (rows["time"] < end)
        features = Features(
            all=(
                Categorical(name="item", role="item", rows=FIRST + self.mall.n_items),
                Group(name="basket"),
                Group(name="user"),
                Time(name="time"),
            )
        )
        columns = {"item": FIRST + rows["item"], "basket": basket, "user": rows["user"], "time": rows["time"]}
        return InMemory({name: values[keep] for name, values in columns.items()}, features=features)
