"""People by all that they do, at moments of which one knows what followed: rows for a global user representation."""

from functools import lru_cache
from typing import Literal

import chz
import numpy as np

from data.dictionary import DAY, Cleaning, Dictionary, canonical, fit
from data.features import FIRST, Categorical, Feature, Features, Group, Label, Numeric, Sequence
from data.hashed_text import hashed_tfidf
from data.mall.behaviours import JUNK, KINDS, MACHINES, PRODUCT_OF, PRODUCTS, Behaviours, behaviours, categories
from data.mall.build import build, pointers, sliding, windows
from data.mall.config import Mall
from data.mall.guests import held_out
from data.mall.latents import THEMES
from data.mall.rng import uniforms
from data.mall.texts import DIM, hashed_texts, listing_texts
from data.mall.users import everyone
from data.mall.views.words import lexicon
from data.mall.with_vectors import WithVectors
from data.sources import InMemory, SourceConfig
from data.transforms.history import Ids

WINDOW = 5  # days after the moment that interest labels are of
LIKED = 2  # leaves that a tag writer names


@chz.chz
class MallGlobalUsers(SourceConfig):
    """One row per person and moment: `behaviour` and beside it the kind, the product, the hours until the moment
    (log1p), hour and weekday of each, and the vector of its text.

    Labels: `interests`, the leaves that were viewed, clicked and bought in the five days after the moment; `tags`, the
    vector of the interest tags that a language model would write of the events, of which a stand-in names the two
    commonest leaves and themes, for half of the people (`tagged`). Training's moments leave room for the window within
    the training days. In evaluation the moment is the person's first known behaviour after them, `target`, and
    `true_interests` has the leaves of the person's own. Without `guests` no row is of one of them.
    """

    mall: Mall = chz.field(default_factory=lambda: Mall(size="small"))
    split: Literal["train", "test"] = "train"
    length: int = chz.field(default=40, doc="behaviours kept, the newest")
    moments: int = chz.field(default=4, doc="of each person in training")
    cleaning: Cleaning | None = chz.field(default_factory=Cleaning, doc="None: every token that is seen twice")
    junk: float = chz.field(default=JUNK, doc="events that say nothing, as a share of the shop's")
    bots: float = chz.field(default=MACHINES, doc="machines, as a share of the people")
    guests: bool = chz.field(default=True, doc="also rows of guests, as data/mall/guests.py names them")

    def make(self) -> WithVectors:
        found = self.dictionary()
        log, ids = self.log(found)
        user, now, at = self._moments(log)
        columns, features = self.rows(log, ids, user=user, now=now, rows=found.rows)
        columns["interests"], columns["interests/known"] = self._interests(user, now)
        columns["tags"], columns["tagged"] = self._tags(log, user=user, now=now)
        leaves, dim = self.mall.leaves, DIM
        labels: list[Label] = [
            Ids(name="interests", width=leaves, type="real"),
            Label(name="interests/known"),
            Ids(name="tags", width=dim, type="real"),
            Label(name="tagged"),
        ]
        if self.split == "test":
            columns["target"], columns["true_interests"] = ids[at], FIRST + self._true(user)
            labels += [Label(name="target", type="class"), Ids(name="true_interests", width=self.mall.interests)]
        source = InMemory(columns, features=features.plus(*labels, Group(name="user")))
        return WithVectors(source, vectors=token_vectors(self.mall, found), of={"behaviour": "behaviour_text"})

    def dictionary(self) -> Dictionary:
        return _dictionary(self.mall, self.cleaning, self.junk, self.bots)

    def log(self, found: Dictionary) -> tuple[Behaviours, np.ndarray]:
        """What people did that has a token, and the tokens."""
        log = behaviours(self.mall, junk=self.junk, bots=self.bots)
        ids = found.ids(log.events.token)
        keep = np.flatnonzero((ids > 0) & (log.events.user < self.mall.n_users))
        return log.rows(keep), ids[keep]

    def _moments(self, log: Behaviours) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User, time, and in evaluation the place of the event that it is the moment before."""
        end, time, user = self.mall.period("train")[1], log.events.time, log.events.user
        kept = np.full(self.mall.n_users, True) if self.guests else ~held_out(self.mall)
        if self.split == "test":
            later = np.flatnonzero((time >= end) & kept[user])
            who, first = np.unique(user[later], return_index=True)
            return who, time[later[first]], later[first]
        people = np.flatnonzero(kept)
        u = uniforms(self.mall.seed, name="global user moments", ids=people, draws=self.moments)
        now = (0.2 + 0.8 * u) * (end - WINDOW * DAY)
        return np.repeat(people, self.moments), now.astype(np.int64).reshape(-1), np.zeros(0, int)

    def rows(
        self, log: Behaviours, ids: np.ndarray, *, user: np.ndarray, now: np.ndarray, rows: int
    ) -> tuple[dict, Features]:
        """The newest behaviours of each person before a moment, and the features; `rows` of the table of tokens."""
        start, end = pointers({"user": log.events.user, "time": log.events.time}, user=user, time=now)
        local, time = self.length, log.events.time
        product = np.array(PRODUCT_OF)[log.kind]
        told = {
            "behaviour": (ids.astype(np.int32), rows),
            "behaviour_kind": ((FIRST + log.kind).astype(np.int32), FIRST + len(KINDS)),
            "behaviour_product": ((FIRST + product).astype(np.int32), FIRST + len(PRODUCTS)),
            "behaviour_hour": ((FIRST + time // 3600 % 24).astype(np.int32), FIRST + 24),
            "behaviour_weekday": ((FIRST + time // DAY % 7).astype(np.int32), FIRST + 7),
        }
        columns: dict = {"user": user}
        features: list[Feature] = []
        for name, (values, size) in told.items():
            columns[name], columns[f"{name}/length"] = windows(sliding(values, length=local), start=start, end=end)
            of = Categorical(name=name, role="user", rows=size)
            features.append(Sequence(name=name, role="user", of=of, length=local))
        when, count = windows(sliding(time, length=local), start=start, end=end)
        there = np.arange(local) < count[:, None]
        columns["behaviour_gap"] = np.where(there, np.log1p((now[:, None] - when) / 3600), 0)
        columns["behaviour_gap/length"] = count
        features.append(Sequence(name="behaviour_gap", role="user", of=Numeric(name="behaviour_gap"), length=local))
        columns["now_hour"], columns["now_weekday"] = FIRST + now // 3600 % 24, FIRST + now // DAY % 7
        features.append(Categorical(name="now_hour", role="user", rows=FIRST + 24, share="behaviour_hour"))
        features.append(Categorical(name="now_weekday", role="user", rows=FIRST + 7, share="behaviour_weekday"))
        return columns, Features(all=tuple(features))

    def _interests(self, user: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        built = build(self.mall)
        acts = built.log.actions
        start = pointers(acts, user=user, time=now)[1]
        end = pointers(acts, user=user, time=now + WINDOW * DAY)[1]
        found = np.zeros((len(user), self.mall.leaves), np.float32)
        row = np.repeat(np.arange(len(user)), end - start)
        place = np.arange(len(row)) - np.repeat(np.cumsum(end - start) - (end - start), end - start)
        found[row, built.shop.leaf[acts["item"][start[row] + place]]] = 1
        return found, end > start

    def _tags(self, log: Behaviours, *, user: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        built = build(self.mall)
        start, end = pointers({"user": log.events.user, "time": log.events.time}, user=user, time=now)
        item, mall = log.item, self.mall
        words = lexicon(mall)
        names = [_names(words, kind, count) for kind, count in (("leaf", mall.leaves), ("theme", THEMES))]
        texts = []
        for lo, hi in zip(start.tolist(), end.tolist(), strict=True):
            seen = item[lo:hi][item[lo:hi] >= 0]
            numbers = (built.shop.leaf[seen], built.shop.spu_theme[built.shop.spu[seen]])
            said = [
                name[n]
                for name, values in zip(names, numbers, strict=True)
                for n in np.argsort(-np.bincount(values, minlength=len(name)), kind="stable")[:LIKED]
            ]
            texts.append(" ".join(said) if len(seen) else "")
        unique, inverse = np.unique(np.array(texts), return_inverse=True)
        vectors = hashed_tfidf(unique.tolist(), dim=DIM, corpus=listing_texts(mall))[inverse]
        read = uniforms(mall.seed, name="tagged", ids=user, draws=1)[:, 0] < 0.5
        return vectors, read & (np.linalg.norm(vectors, axis=1) > 0)

    def _true(self, user: np.ndarray) -> np.ndarray:
        return everyone(self.mall, shop=build(self.mall).shop).leaf[user]


@lru_cache(maxsize=4)
def _dictionary(mall: Mall, rules: Cleaning | None, junk: float, bots: float) -> Dictionary:
    """Of the training days."""
    events = behaviours(mall, junk=junk, bots=bots).events
    events = events.rows(events.time < mall.period("train")[1])
    if rules is not None:
        return fit(events, rules=rules, category=categories(mall))
    raw, count = np.unique(events.token, return_counts=True)
    names = [canonical(token) for token in raw[count > 1].tolist()]
    tokens = tuple(raw[count > 1].tolist())
    return RawDictionary(tokens, dict(zip(tokens, names, strict=True)), np.zeros(0, int), {"tokens": len(tokens)})


class RawDictionary(Dictionary):
    """Every spelling is a token: what a model is given without cleaning."""

    def ids(self, raw: np.ndarray) -> np.ndarray:
        known = np.array(self.tokens)
        place = np.minimum(np.searchsorted(known, raw), len(known) - 1)
        return np.where(known[place] == raw, FIRST + place, 0).astype(np.int32)


def token_vectors(mall: Mall, found: Dictionary) -> np.ndarray:
    """[rows + 1, DIM] of each token: the listing's text, the words searched for, nothing for others and for a mask."""
    out = np.zeros((found.rows + 1, DIM), np.float32)
    items, searched = hashed_texts(mall), {}
    for number, token in enumerate(found.tokens):
        name = canonical(token)
        kind, _, rest = name.rpartition("/")
        if kind in ("shop/item", "video") and rest.isdecimal():
            out[FIRST + number] = items[FIRST + int(rest)]
        elif kind == "search":
            searched[number] = rest
    if searched:
        at = FIRST + np.fromiter(searched, int)
        out[at] = hashed_tfidf(list(searched.values()), dim=DIM, corpus=listing_texts(mall))
    return out


def _names(words, kind: str, count: int) -> list[str]:
    zero = np.zeros(count)
    return [words.strings[t] for t in words.pick(kind, value=np.arange(count), second=zero > 0, u=zero)]
