"""People by the texts of what they looked at, and the listings by theirs: for models that read and know no id."""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Categorical, Features, Group, Sequence
from data.mall.build import build, pointers, sliding, windows
from data.mall.config import Mall
from data.mall.guests import KNOWN, held_out
from data.mall.interests import IdList
from data.mall.sources import WithHistory
from data.mall.texts import text_vectors
from data.mall.with_vectors import CONTENT, WithVectors
from data.sources import InMemory, SourceConfig

HISTORY_CONTENT = "history_content"
FEW = 4  # actions below which a person teaches nothing


@chz.chz
class MallReaders(SourceConfig):
    """One row per person: `history`, what was looked at and clicked in the training days, and `item`, what came next.

    In training that is the newest action of those days; in evaluation the first item of `taken`, what the person went
    on to look at and click for the first time, in order. `history_content` and `content` are the texts' vectors. People
    who are held out for `MallGuests` are in no training row.
    """

    mall: Mall = chz.field(default_factory=Mall)
    split: Literal["train", "test"] = "train"
    length: int = chz.field(default=40, doc="actions kept")
    content: str | None = chz.field(
        default=None, doc="vectors of the listings' texts, as embed wrote them; None: hashed TF-IDF"
    )
    most: int = chz.field(default=20, doc="items of taken, the first of more")
    cold: bool = chz.field(default=False, doc="only what arrived after the training days counts as taken")

    def make(self) -> WithVectors:
        built, mall = build(self.mall), self.mall
        log, end = built.log.actions, mall.period("train")[1]
        people = np.flatnonzero(~held_out(mall)) if self.split == "train" else np.arange(mall.n_users)
        start, stop = pointers(log, user=people, time=np.full(len(people), end))
        keep = stop - start >= FEW
        people, start, stop = people[keep], start[keep], stop[keep]
        features = _history(mall, length=self.length).plus(_item(mall), Group(name="user"))
        columns = {"user": people}
        if self.split == "test":
            taken = self._taken(people)
            there = (taken > 0).any(axis=1)
            taken, start, stop = taken[there], start[there], stop[there]
            columns = {"user": people[there], "taken": taken, "taken/length": (taken > 0).sum(axis=1)}
            columns["item"] = taken[:, 0]
            features = features.plus(IdList(name="taken", length=self.most))
        else:
            stop = stop - 1
            columns["item"] = FIRST + log["item"][stop]
        ids = sliding((FIRST + log["item"]).astype(np.int32), length=self.length)
        columns["history"], columns["history/length"] = windows(ids, start=start, end=stop)
        source = InMemory(columns, features=features)
        vectors = text_vectors(mall, path=self.content)
        return WithVectors(source, vectors=vectors, of={"history": HISTORY_CONTENT, "item": CONTENT})

    def _taken(self, people: np.ndarray) -> np.ndarray:
        """[people, most] ids, padded with 0 at the end."""
        built, mall = build(self.mall), self.mall
        log, end = built.log.actions, mall.period("train")[1]
        key = log["user"].astype(np.int64) * mall.n_items + log["item"]
        _, first = np.unique(key, return_index=True)  # of a user's actions with an item the earliest
        first = np.sort(first[log["time"][first] >= end])
        if self.cold:
            first = first[built.shop.arrival[log["item"][first]] >= end]
        user, item = log["user"][first], (FIRST + log["item"][first]).astype(np.int32)
        begin, stop = (np.searchsorted(user, people, side=side) for side in ("left", "right"))
        place = np.arange(self.most)
        at = np.minimum(begin[:, None] + place, max(len(item) - 1, 0))
        return np.where(begin[:, None] + place < stop[:, None], item[at], 0)


@chz.chz
class MallVisits(SourceConfig):
    """One row per request, by the number `visit`: what its person had done before; of guests the newest of it."""

    mall: Mall = chz.field(default_factory=Mall)
    length: int = chz.field(default=40, doc="actions kept, the newest")
    content: str | None = chz.field(default=None, doc="as of MallReaders")

    def make(self) -> WithVectors:
        built, mall = build(self.mall), self.mall
        user, time = built.log.requests["user"], built.log.requests["time"]
        columns = {"visit": FIRST + np.arange(len(user)), "user_group": user, "time": time}
        features = _history(mall, length=self.length).plus(Group(name="visit"), Group(name="user_group"))
        source = WithHistory(columns, features=features, shop=built.shop, log=built.log, length=self.length)
        source.forget(held_out(mall)[user], keep=KNOWN)
        vectors = text_vectors(mall, path=self.content)
        return WithVectors(source, vectors=vectors, of={"history": HISTORY_CONTENT})


@chz.chz
class MallListings(SourceConfig):
    """Every listing by its id and the vector of its text."""

    mall: Mall = chz.field(default_factory=Mall)
    content: str | None = chz.field(default=None, doc="as of MallReaders")

    def make(self) -> WithVectors:
        items = (FIRST + np.arange(self.mall.n_items)).astype(np.int32)
        source = InMemory({"item": items}, features=Features(all=(_item(self.mall),)))
        return WithVectors(source, vectors=text_vectors(self.mall, path=self.content), of={"item": CONTENT})


def _history(mall: Mall, *, length: int) -> Features:
    item = Categorical(name="item", role="user", rows=FIRST + mall.n_items)
    return Features(all=(Sequence(name="history", role="user", of=item, length=length),))


def _item(mall: Mall) -> Categorical:
    return Categorical(name="item", role="item", rows=FIRST + mall.n_items)
