"""The mall's sources: click rows, sequences, two-tower rows, products, image-title pairs."""

from typing import Literal

import chz
import numpy as np

from data.features import (
    FIRST,
    UNKNOWN,
    Categorical,
    Dense,
    Features,
    Group,
    Label,
    Numeric,
    Role,
    Sequence,
    Text,
    Time,
    Truth,
)
from data.mall.build import build, pointers, shop_of, sliding, spans, windows
from data.mall.config import DAY, Mall
from data.mall.events import Log
from data.mall.latents import Catalogue
from data.mall.rng import uniforms
from data.mall.users import SEGMENTS, favourites
from data.mall.vectors import read_vectors
from data.mall.views.features import View, view_columns, view_features
from data.mall.views.text import QUERY, queries
from data.mall.views.words import lexicon
from data.sources import InMemory, Rows, SourceConfig

Split = Literal["train", "valid", "test"]


def _id(name: str, count: int, *, role: Role) -> Categorical:
    return Categorical(name=name, role=role, rows=FIRST + count)


def item_features(mall: Mall) -> tuple:
    return (
        _id("item", mall.n_items, role="item"),
        _id("category", mall.leaves, role="item"),
        _id("brand", mall.dims.brands, role="item"),
        Numeric(name="price", role="item", transform="standard", mean=3.5, scale=1.2),
    )


def item_columns(shop: Catalogue, items: np.ndarray) -> Rows:
    return {
        "item": FIRST + items,
        "category": FIRST + shop.leaf[items],
        "brand": FIRST + shop.spu_brand[shop.spu[items]],
        "price": (shop.price[items] - 3.5) / 1.2,
    }


def _history_features(mall: Mall, length: int) -> tuple:
    item = _id("item", mall.n_items, role="user")
    category = _id("category", mall.leaves, role="user")
    return (
        Sequence(name="history", role="user", of=item, length=length),
        Sequence(name="history_category", role="user", of=category, length=length),
    )


class WithHistory(InMemory):
    """Columns in memory; histories (and content vectors) are gathered when rows are taken."""

    def __init__(
        self,
        columns: Rows,
        *,
        features: Features,
        shop: Catalogue,
        log: Log,
        length: int,
        vectors: np.ndarray | None = None,
        known: np.ndarray | None = None,
    ):
        lazy = [n for n in ("history", "history_category", "content", "history_content") if n in features]
        super().__init__(columns, features=features.without(*lazy))
        self.features = features
        self._vectors, self._known = vectors, known
        past = log.actions["item"]
        self._past = sliding((FIRST + past).astype(np.int32), length=length)
        self._past_leaf = sliding((FIRST + shop.leaf[past]).astype(np.int32), length=length)
        self._start, self._end = pointers(log.actions, user=columns["user_group"], time=columns["time"])

    def forget(self, rows: np.ndarray, *, keep: int) -> None:
        """Of these rows (a mask) the newest `keep` actions alone are known."""
        self._start = np.where(rows, np.maximum(self._start, self._end - keep), self._start)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = super().take(indices)
        where = {"start": self._start[indices], "end": self._end[indices]}
        items, count = windows(self._past, **where)
        rows["history"], rows["history/length"] = items, count
        rows["history_category"], rows["history_category/length"] = windows(self._past_leaf, **where)
        if self._vectors is not None:
            rows["content"] = self._vectors[rows["item"]]
            if "history_content" in self.features:
                rows["history_content"], rows["history_content/length"] = self._vectors[items], count
        if self._known is not None:
            for name in ("item", "history"):
                rows[name] = np.where(self._known[rows[name]], rows[name], np.int32(UNKNOWN))
        return rows


def clicks(
    mall: Mall,
    *,
    shop: Catalogue,
    log: Log,
    split: Split,
    history: int,
    content: str | None,
    content_history: bool,
    newcomers: bool = False,
) -> WithHistory:
    """The impressions of a log (of the mall, or of one shard) that fall in a split."""
    start, end = mall.period(split)
    keep = np.flatnonzero((log.impressions["time"] >= start) & (log.impressions["time"] < end))
    row = {name: column[keep] for name, column in log.impressions.items()}
    vectors = read_vectors(content, rows=FIRST + mall.n_items) if content else None
    columns = {
        **item_columns(shop, row["item"]),
        "user": FIRST + row["user"],
        "segment": FIRST + row["segment"],
        "query": np.where(row["query"] >= 0, FIRST + row["query"], 0),
        "position": FIRST + row["slot"],
        "hour": FIRST + row["time"] // 3600 % 24,
        "item_age": np.log1p(item_age(shop, items=row["item"], time=row["time"])),
        **{name: row[name] for name in ("click", "true_ctr", "relevance", "propensity", "time")},
        "is_cold": shop.arrival[row["item"]] >= mall.period("train")[1],
        "user_group": row["user"],
    }
    features = click_features(
        mall,
        history=history,
        dim=0 if vectors is None else vectors.shape[1],
        content_history=content_history,
    )
    known = np.concatenate([np.ones(FIRST, bool), shop.arrival < mall.period("train")[1]]) if newcomers else None
    return WithHistory(columns, features=features, shop=shop, log=log, length=history, vectors=vectors, known=known)


def item_age(shop: Catalogue, *, items: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Days since the listing arrived, at most 28: nobody remembers when the old ones came."""
    return np.minimum((time - shop.arrival[items]) / DAY, 28.0).astype(np.float32)


def click_features(mall: Mall, *, history: int, dim: int = 0, content_history: bool = False) -> Features:
    """Of `MallClicks`, and of the files in `clicks/` that `write` makes."""
    content: tuple = (Dense(name="content", role="item", dim=dim),) if dim else ()
    if dim and content_history:
        vector = Dense(name="content", role="user", dim=dim)
        content += (Sequence(name="history_content", role="user", of=vector, length=history),)
    return Features(
        all=(
            *item_features(mall),
            Numeric(name="item_age", role="item", transform="log1p"),
            _id("user", mall.n_users, role="user"),
            _id("segment", SEGMENTS, role="user"),
            _id("query", mall.leaves, role="context"),
            _id("position", mall.dims.slate, role="context"),
            _id("hour", 24, role="context"),
            *_history_features(mall, history),
            *content,
            Label(name="click"),
            *(Truth(name=name) for name in ("true_ctr", "relevance", "propensity", "is_cold")),
            Group(name="user_group"),
            Time(name="time"),
        )
    )


@chz.chz
class MallClicks(SourceConfig):
    """One row per impression."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    history: int = chz.field(default=50, doc="past actions kept, the newest")
    content: str | None = chz.field(default=None, doc="item vectors: a folder that embed wrote, or npz or parquet")
    content_history: bool = chz.field(default=False, doc="also the vectors of the history")

    newcomers = False

    def make(self) -> WithHistory:
        built = build(self.mall)
        return clicks(
            built.mall,
            shop=built.shop,
            log=built.log,
            split=self.split,
            history=self.history,
            content=self.content,
            content_history=self.content_history,
            newcomers=self.newcomers,
        )


@chz.chz
class MallNewcomers(MallClicks):
    """The same rows by a vocabulary of the training days: items that arrived later have the unknown id."""

    newcomers = True


@chz.chz
class MallSequences(SourceConfig):
    """One row per user: what was viewed and clicked, each item once.

    by "last": of each user the last two are sought, by valid and by test, though others may have taken a newer item in
    training. by "time": what a user took first in the days of the split, from all that came before; training sees the
    training days alone. "target_age" is how many days ago the item sought had arrived.
    """

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    max_len: int = 50
    by: Literal["last", "time"] = "last"

    def make(self) -> InMemory:
        built = build(self.mall)
        actions = built.log.actions
        _, first = np.unique(actions["user"] * np.int64(self.mall.n_items) + actions["item"], return_index=True)
        first.sort()
        user, item, time = (actions[name][first] for name in ("user", "item", "time"))
        people, start, end = spans(user, time, mall=self.mall, split=self.split, by_time=self.by == "time")
        ids = (item + FIRST).astype(np.int32)
        history, count = windows(sliding(ids, length=self.max_len), start=start, end=end)
        inner = _id("item", self.mall.n_items, role="user")
        features = Features(all=(Sequence(name="history", role="user", of=inner, length=self.max_len),))
        columns = {"history": history, "history/length": count, "user": people}
        if self.split != "train":
            features = features.plus(Label(name="target", type="class"), Truth(name="target_age"))
            columns["target"] = ids[end]
            columns["target_age"] = (time[end] - built.shop.arrival[item[end]]) / DAY
        return InMemory(columns, features=features.plus(Group(name="user")))


@chz.chz
class MallQueries(SourceConfig):
    """Clicked impressions as pairs of user and item, with the item's log share of the training clicks."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    history: int = 50
    words: bool = chz.field(default=False, doc="also the words of the query, for encoders of text")

    def make(self) -> WithHistory:
        built = build(self.mall)
        mall, shop, log = built.mall, built.shop, built.log.impressions
        start, end = mall.period(self.split)
        keep = np.flatnonzero((log["time"] >= start) & (log["time"] < end) & log["click"])
        train = log["item"][log["click"] & (log["time"] < mall.period("train")[1])]
        share = np.bincount(train, minlength=mall.n_items) + 1.0
        logq = np.log(share / share.sum())
        user, item, time = log["user"][keep], log["item"][keep], log["time"][keep]
        columns = {
            **item_columns(shop, item),
            "user": FIRST + user,
            "segment": FIRST + log["segment"][keep],
            "query": np.where(log["query"][keep] >= 0, FIRST + log["query"][keep], 0),
            "item_logq": logq[item],
            "is_cold": shop.arrival[item] >= mall.period("train")[1],
            "user_group": user,
            "time": time,
        }
        features = Features(
            all=(
                _id("user", mall.n_users, role="user"),
                _id("segment", SEGMENTS, role="user"),
                _id("query", mall.leaves, role="user"),
                *_history_features(mall, self.history),
                *item_features(mall),
                Truth(name="item_logq"),
                Truth(name="is_cold"),
                Group(name="user_group"),
                Time(name="time"),
            )
        )
        if self.words:
            wished = favourites(mall, shop=shop)[user]
            tokens, count = queries(mall, leaf=log["query"][keep], wished=wished, users=user, times=time)
            columns["query_words"], columns["query_words/length"] = tokens, count
            features = features.plus(Text(name="query_words", role="user", tokens=lexicon(mall).tokens, length=QUERY))
        return WithHistory(columns, features=features, shop=shop, log=built.log, length=self.history)


class Products:
    """Listings with their views, rendered when taken."""

    def __init__(self, mall: Mall, *, items: np.ndarray, features: Features, views: tuple[View, ...]):
        self.features = features
        self._mall, self._shop, self._items, self._views = mall, shop_of(mall), items, views

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        items = self._items[indices]
        columns: Rows = {**item_columns(self._shop, items), "spu": self._shop.spu[items]}
        columns |= view_columns(self._mall, shop=self._shop, items=items, views=self._views)
        declared = self.features.arrays()
        return {name: columns[name].astype(dtype, copy=False) for name, (_, dtype) in declared.items()}


@chz.chz
class MallProducts(SourceConfig):
    """Every listing once, in order of its id; `spu` names the product it offers."""

    mall: Mall = chz.field(default_factory=Mall)
    views: tuple[View, ...] = ("image", "title")

    def make(self) -> Products:
        features = (*item_features(self.mall), *view_features(self.mall, views=self.views))
        features += (Label(name="spu", type="class"),)
        items = np.arange(self.mall.n_items)
        return Products(self.mall, items=items, features=Features(all=features), views=self.views)


@chz.chz
class MallPairs(SourceConfig):
    """Two views of one listing; 80, 10 and 10 percent of the products, so that no product is in two splits."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    views: tuple[View, ...] = ("image", "title")

    def make(self) -> Products:
        shop = shop_of(self.mall)
        u = uniforms(self.mall.seed, name="pair split", ids=shop.spu, draws=1)[:, 0]
        low, high = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}[self.split]
        items = np.flatnonzero((u >= low) & (u < high))
        features = Features(all=(*view_features(self.mall, views=self.views), Label(name="spu", type="class")))
        return Products(self.mall, items=items, features=features, views=self.views)
