"""What people did in the shop before a click, with when and how: for recommending without a model of the user."""

import chz
import numpy as np

from data.features import FIRST, Categorical, Features, Group, Label, Numeric, Sequence, Truth
from data.mall.build import build, pointers, sliding, windows
from data.mall.config import DAY, Mall
from data.mall.sources import Split
from data.sources import InMemory, SourceConfig


@chz.chz
class MallShoppers(SourceConfig):
    """One row per click: its item, and the person's actions before the split's period, oldest first.

    `history_days` says how long before that period an action was, `history_click` 1 where it was a click and 0 where it
    was a view. `is_cold`: the item came after the training days.
    """

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "test"
    history: int = chz.field(default=50, doc="actions kept, the newest")
    most: int | None = chz.field(default=2000, doc="clicks kept, evenly spread over people; None: all")

    def make(self) -> InMemory:
        built, mall = build(self.mall), self.mall
        log, (start, end) = built.log, mall.period(self.split)
        clicks = np.flatnonzero(
            (log.impressions["time"] >= start) & (log.impressions["time"] < end) & log.impressions["click"]
        )
        if self.most is not None:
            clicks = clicks[np.unique(np.linspace(0, len(clicks) - 1, self.most).astype(int))]
        user, item = log.impressions["user"][clicks], log.impressions["item"][clicks]
        first, last = pointers(log.actions, user=user, time=np.full(len(user), start))
        past = {
            "history": (FIRST + log.actions["item"]).astype(np.int32),
            "history_days": ((start - log.actions["time"]) / DAY).astype(np.float32),
            "history_click": log.actions["click"].astype(np.float32),
        }
        columns = {"item": FIRST + item, "user": user}
        columns["is_cold"] = built.shop.arrival[item] >= mall.period("train")[1]
        for name, values in past.items():
            columns[name], columns[f"{name}/length"] = windows(
                sliding(values, length=self.history), start=first, end=last
            )
        items = Categorical(name="item", role="user", rows=FIRST + mall.n_items)
        declared = (
            Sequence(name="history", role="user", of=items, length=self.history),
            *(
                Sequence(name=name, role="user", of=Numeric(name=name), length=self.history)
                for name in ("history_days", "history_click")
            ),
            Label(name="item", type="class"),
            Truth(name="is_cold"),
            Group(name="user"),
        )
        return InMemory(columns, features=Features(all=declared))
