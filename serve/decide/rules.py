"""From scored candidates to the page: caps, diversity and the auction, as one typed config.

Caps and diversity choose which candidates go on the page; without an auction they also order them. An auction takes
eCPM = bid x score as relevance, orders the chosen by it, and charges each the least that keeps its place among them;
the last pays against the best candidate that could have had its place.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import chz
import numpy as np
import pyarrow as pa

from data.columns import column, floats, is_key, is_list, is_number
from data.errors import UserError
from serve.decide.auction import Auction, checked_rates, fault_of_bids, prices
from serve.decide.slate import Limit, Similarity, by_groups, by_vectors, choose, spread

Rule = Literal["caps", "diversity", "auction"]
RULES: tuple[Rule, ...] = ("caps", "diversity", "auction")
Shown = Mapping[str, Mapping[Any, int]]
"""Column, such as campaign, to value to how often this user has been shown it."""


@chz.chz
class Cap:
    """At most `most` with one value of a column, such as a seller; items without a value are not limited."""

    by: str = chz.field(doc="column of the feature store")
    most: int
    per: Literal["page", "user"] = chz.field(default="page", doc="user: what the request says was shown counts too")

    @chz.validate
    def _most_is_a_count(self):
        if self.most < 0:
            raise ValueError(f"a cap of {self.most} on {self.by} is no count; give 0 or more")


@chz.chz
class Diversity:
    """Maximal marginal relevance over a page; see serve/decide/slate.py."""

    by: str = chz.field(doc="column of the feature store: a category, or a vector compared by its cosine")
    weight: float = chz.field(default=0.8, doc="of relevance, spread from 0 to 1 over the candidates; 1: plain ranking")

    @chz.validate
    def _weight_is_a_share(self):
        if not 0 <= self.weight <= 1:
            raise ValueError(f"a diversity of weight {self.weight} is no share; give 0 to 1")


@chz.chz
class Decide:
    caps: tuple[Cap, ...] = ()
    diversity: Diversity | None = None
    auction: Auction | None = None

    def columns(self) -> tuple[str, ...]:
        """What the rules read of an item."""
        found = [cap.by for cap in self.caps]
        found += [] if self.diversity is None else [self.diversity.by]
        found += [] if self.auction is None else [self.auction.bid]
        return tuple(dict.fromkeys(found))

    def rules(self) -> tuple[Rule, ...]:
        """Those that this config has."""
        present = {
            "caps": bool(self.caps),
            "diversity": self.diversity is not None,
            "auction": self.auction is not None,
        }
        return tuple(rule for rule in RULES if present[rule])


@dataclass(frozen=True)
class Decided:
    """Places of the candidates on the page, in order; by candidate why it is not there, eCPM, and price of a click."""

    order: np.ndarray
    why: np.ndarray
    ecpm: np.ndarray | None = None
    price: np.ndarray | None = None


def decide(
    config: Decide,
    *,
    scores: np.ndarray,
    columns: pa.Table,
    k: int,
    shown: Mapping[str, Mapping[Any, int]] = {},
    bids: Mapping[int, float] = {},
    skip: Collection[str] = (),
) -> Decided:
    """`columns` has a row for each score; `bids` replaces those of the store at some places; `skip` names rules."""
    scores = np.asarray(scores, np.float64)
    why = np.full(len(scores), "", object)
    left = np.arange(len(scores))
    auction = None if "auction" in skip else config.auction
    value, offered, price = scores, None, None
    if auction is not None:
        offered, fault = _bids(auction, columns=columns, bids=bids)
        value = np.where(fault == "", offered, 0.0) * checked_rates(scores)
        why[fault != ""] = fault[fault != ""]
        left = left[fault == ""]
    limits = [] if "caps" in skip else [_limit(cap, columns=columns, shown=shown) for cap in config.caps]
    similarity, weight = None, 1.0
    if config.diversity is not None and "diversity" not in skip:
        similarity, weight = (
            _similarity(config.diversity, columns=columns.take(pa.array(left))),
            config.diversity.weight,
        )
    some = [Limit(limit.name, limit.group[left], limit.most, limit.seen) for limit in limits]
    relevance = value[left] if similarity is None else spread(value[left])
    slate = choose(relevance, k=k, similarity=similarity, weight=weight, limits=some)
    order = left[slate.chosen]
    for place, blocked in zip(left.tolist(), slate.blocked.tolist(), strict=True):
        why[place] = blocked and f"{blocked} is reached"
    rest = np.setdiff1d(left[slate.blocked == ""], order)
    why[rest] = f"below the {k} of the page"
    if auction is not None and offered is not None:
        order = order[np.argsort(-value[order], kind="stable")]
        after = float(value[rest].max()) if len(rest) else 0.0
        price = np.full(len(scores), np.nan)
        price[order] = prices(order, bids=offered, rates=scores, reserve=auction.reserve, after=after)
    return Decided(order, why, None if auction is None else value, price)


def _bids(auction: Auction, *, columns: pa.Table, bids: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Bids, and why a candidate is not in the auction, "" where it is."""
    stored = column(columns, auction.bid, file="the feature store")
    if not (is_number(stored.type) or pa.types.is_null(stored.type)):
        raise UserError(f"column {auction.bid!r} is {stored.type}; bids are numbers")
    offered, none = floats(stored)
    offered = offered.astype(np.float64)
    fault = np.where(none, "it has no bid", fault_of_bids(offered)).astype(object)
    for place, bid in bids.items():
        if not (isinstance(bid, int | float) and 0 <= bid < float("inf")) or isinstance(bid, bool):
            raise UserError(f"the request bids {bid!r} for candidate {place}; a bid is a number, 0 or more and finite")
        offered[place], fault[place] = bid, ""
    low = (fault == "") & (offered < auction.reserve)
    fault[low] = f"its bid is below the reserve of {auction.reserve:g}"
    return offered, fault


def _limit(cap: Cap, *, columns: pa.Table, shown: Shown) -> Limit:
    name = f"cap of {cap.most} for {cap.by}" + (" and user" if cap.per == "user" else "")
    group, values = _groups(cap.by, columns=columns)
    if cap.per == "page":
        return Limit(name, group, cap.most)
    if cap.by not in shown:
        raise UserError(
            f"a cap for {cap.by} and user needs to know what was shown: give shown={{{cap.by!r}: {{value: count}}}}"
        )
    before = {str(value): int(count) for value, count in shown[cap.by].items()}  # keys of JSON are strings
    seen = {code: before.get(str(value), 0) for code, value in enumerate(values)}
    return Limit(name, group, cap.most, seen)


def _similarity(diversity: Diversity, *, columns: pa.Table) -> Similarity:
    values = column(columns, diversity.by, file="the feature store")
    if not is_list(values.type):
        return by_groups(_groups(diversity.by, columns=columns)[0])
    rows = values.to_pylist()
    widths = {len(row) for row in rows if row is not None}
    if len(widths) > 1 or not is_number(values.type.value_type):
        raise UserError(f"column {diversity.by!r} holds no vectors of one width: {values.type} of {sorted(widths)}")
    none = [0.0] * (widths.pop() if widths else 1)
    return by_vectors(np.array([none if row is None else row for row in rows], np.float64))


def _groups(name: str, *, columns: pa.Table) -> tuple[np.ndarray, list[Any]]:
    """A number for each value, -1 for none, and the values by their numbers."""
    values = column(columns, name, file="the feature store")
    if pa.types.is_null(values.type):
        return np.full(len(values), -1, np.int64), []
    if not is_key(values.type):
        raise UserError(f"column {name!r} is {values.type}; groups are named by integers or strings")
    coded = values.dictionary_encode()
    return coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), coded.dictionary.to_pylist()
