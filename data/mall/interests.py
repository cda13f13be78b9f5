"""What each person of the mall goes on to click: for lists that are made once a person, not once a click."""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Group, Label, Shape, Time
from data.mall.build import build
from data.mall.config import Mall
from data.mall.sources import MallQueries, WithHistory
from data.sources import SourceConfig


@chz.chz
class IdList(Label):
    """Ids to compare with, as many as a row has; padded with 0 at the end."""

    type: Literal["binary", "real", "class"] = "class"
    length: int

    @property
    def shape(self) -> Shape:
        return (self.length,)

    def arrays(self) -> dict[str, tuple[Shape, np.dtype]]:
        return {self.name: (self.shape, self.dtype), f"{self.name}/length": ((), np.dtype(np.int32))}


@chz.chz
class MallInterests(SourceConfig):
    """One row per person who has a past when training ends and clicks something new after it: `taken`, each item once.

    The features are those of `MallQueries` on the user's side, without a query.
    """

    mall: Mall = chz.field(default_factory=Mall)
    history: int = chz.field(default=50, doc="past actions kept, the newest")
    most: int = chz.field(default=20, doc="items of `taken`, the first of more")

    def make(self) -> WithHistory:
        asked = MallQueries(mall=self.mall, history=self.history)
        built, known = build(self.mall), asked.make()
        log, now = built.log, self.mall.period("train")[1]
        later = log.impressions["click"] & (log.impressions["time"] >= now)
        user, item = log.impressions["user"][later], log.impressions["item"][later]
        past = log.actions["time"] < now
        before = _pairs(self.mall, log.actions["user"][past], log.actions["item"][past])
        pair, first = np.unique(_pairs(self.mall, user, item), return_index=True)
        first = np.sort(first[~np.isin(pair, before) & np.isin(user[first], log.actions["user"][past])])
        people, start, count = np.unique(user[first], return_index=True, return_counts=True)
        count = np.minimum(count, self.most)
        place = np.arange(self.most)
        at = first[np.minimum(start[:, None] + place, len(first) - 1)]
        segment = np.zeros(self.mall.n_users, np.int64)
        segment[log.impressions["user"]] = log.impressions["segment"]
        columns = {
            "user": FIRST + people,
            "segment": FIRST + segment[people],
            "query": np.zeros(len(people), np.int64),
            "taken": np.where(place < count[:, None], FIRST + item[at], 0),
            "taken/length": count,
            "user_group": people,
            "time": np.full(len(people), now),
        }
        features = known.features.select(roles=("user",)).plus(
            IdList(name="taken", length=self.most), Group(name="user_group"), Time(name="time")
        )
        return WithHistory(columns, features=features, shop=built.shop, log=log, length=self.history)


def _pairs(mall: Mall, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    return user.astype(np.int64) * mall.n_items + item
