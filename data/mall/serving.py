"""The mall at request time: what is known of its listings, what is popular, who asks, and what each answer is worth.

Raw values, as `python -m serve features` and `rank` take them: those that `MallClicks` encodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import chz
import numpy as np
import pyarrow as pa

from data.features import FIRST
from data.mall.ads import campaigns
from data.mall.build import build, pointers, shop_of, sliding, windows
from data.mall.config import Mall
from data.mall.rng import stream
from data.mall.sources import Split
from data.mall.truth import relevance, relevance_logit
from data.mall.users import everyone
from data.tables import TableConfig, list_column

ALL = 1
"""Key of the list over all categories: the unknown one, which names no category."""


@chz.chz
class MallListings(TableConfig):
    """One row per listing. Advertised ones have what a click is worth to the campaign and when it runs, in seconds."""

    mall: Mall = chz.field(default_factory=Mall)

    def make(self) -> pa.Table:
        shop = shop_of(self.mall)
        ads = campaigns(self.mall, shop=shop)
        spans = {"bid": ads.value.astype(np.float64), "ad_start": ads.start, "ad_end": ads.end}
        sold = np.zeros(len(shop), bool)
        sold[ads.item] = True
        columns = {
            "item": FIRST + np.arange(len(shop)),
            "category": FIRST + shop.leaf,
            "brand": FIRST + shop.spu_brand[shop.spu],
            "price": shop.price.astype(np.float64),
            "arrival": shop.arrival,
            "seller": FIRST + shop.seller,
        }
        table = pa.table(columns)
        for name, values in spans.items():
            full = np.zeros(len(shop), values.dtype)
            full[ads.item] = values
            table = table.append_column(name, pa.array(full, mask=~sold))
        return table


@chz.chz
class MallLists(TableConfig):
    """One row per category, and `ALL`: the listings clicked most in the training days; equal ones in random order."""

    mall: Mall = chz.field(default_factory=Mall)
    most: int = 200

    def make(self) -> pa.Table:
        built = build(self.mall)
        log = built.log.impressions
        clicked = log["item"][log["click"] & (log["time"] < self.mall.period("train")[1])]
        clicks = np.bincount(clicked, minlength=self.mall.n_items)
        luck = stream(self.mall.seed, name="popular ties").random(len(clicks))
        order = np.lexsort((luck, -clicks))
        order = order[clicks[order] > 0]
        leaf = built.shop.leaf[order]
        lists = {ALL: order, **{FIRST + k: order[leaf == k] for k in range(self.mall.leaves)}}
        return pa.table(
            {"category": list(lists), "items": [(FIRST + items[: self.most]).tolist() for items in lists.values()]}
        )


@dataclass(frozen=True)
class Asked:
    """Requests of the log, and where in the log their users then were."""

    user: np.ndarray
    time: np.ndarray
    query: np.ndarray  # leaf, or -1
    segment: np.ndarray
    session_leaf: np.ndarray
    last: np.ndarray  # item of the last action before the request

    def __len__(self) -> int:
        return len(self.user)


def asked(mall: Mall, *, split: Split, most: int | None) -> Asked:
    """Requests of a period, `most` of them evenly spread over the users; None: all."""
    built = build(mall)
    log, (start, end) = built.log.requests, mall.period(split)
    rows = np.flatnonzero((log["time"] >= start) & (log["time"] < end))
    if most is not None and most < len(rows):
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]
    _, before = pointers(built.log.actions, user=log["user"][rows], time=log["time"][rows])
    columns = {name: log[name][rows] for name in ("user", "time", "query", "segment", "session_leaf")}
    return Asked(**columns, last=built.log.actions["item"][before - 1])


@chz.chz
class MallRequests(TableConfig):
    """One row per request of a period: fields of the user and the context."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "test"
    history: int = 20
    most: int | None = None

    def make(self) -> pa.Table:
        built, rows = build(self.mall), asked(self.mall, split=self.split, most=self.most)
        actions = built.log.actions
        start, end = pointers(actions, user=rows.user, time=rows.time)
        items, lengths = windows(sliding(FIRST + actions["item"], length=self.history), start=start, end=end)
        leaves = sliding(FIRST + built.shop.leaf[actions["item"]], length=self.history)
        return pa.table(
            {
                "user": FIRST + rows.user,
                "segment": FIRST + rows.segment,
                "query": np.where(rows.query >= 0, FIRST + rows.query, 0),
                "hour": FIRST + rows.time // 3600 % 24,
                "time": rows.time,
                "history": list_column(items, lengths=lengths),
                "history_category": list_column(windows(leaves, start=start, end=end)[0], lengths=lengths),
            }
        )


def worth(mall: Mall, *, rows: Asked, chunk: int = 64) -> Iterator[tuple[slice, np.ndarray]]:
    """True relevance of every listing to each request [r, listings], some requests at a time; NaN: not there yet."""
    shop = shop_of(mall)
    people = everyone(mall, shop=shop)
    every = np.arange(len(shop))
    for start in range(0, len(rows), chunk):
        part = slice(start, min(start + chunk, len(rows)))
        logit = relevance_logit(
            mall,
            shop=shop,
            people=people.rows(rows.user[part]),
            items=np.broadcast_to(every, (part.stop - start, len(shop))),
            now=rows.time[part],
            session_leaf=rows.session_leaf[part],
            query_leaf=rows.query[part],
            last=rows.last[part],
        )
        yield part, np.where(shop.arrival <= rows.time[part, None], relevance(logit), np.nan)
