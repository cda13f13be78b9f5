"""Pairs of items that a log shows together: in one basket, or in one session of a user's clicks.

Who buys for a shop of their own and pairs of no more than chance are left out; what is alike may stand in for one
another (the augmentation of Kvernadze et al., arXiv 2211.14982).
"""

from typing import Literal

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Categorical, Feature, Features
from data.mall.vectors import read_vectors
from data.sources import InMemory, Rows, SourceConfig
from data.splits import column

BLOCK = 1024  # items compared with all others at once


@chz.chz
class PairsTogether(SourceConfig):
    """One row per pair and basket: `given` has been taken, `item` was taken with it; both share a vocabulary."""

    log: SourceConfig = chz.field(doc="a row for each item that somebody took")
    item: str = chz.field(default="item", doc="categorical feature of the log")
    given: str = chz.field(default="given", doc="name of the other item of a pair")
    basket: str = chz.field(default="basket", doc="array of the log that is equal for what was taken together")
    gap: float | None = chz.field(
        default=None, doc="seconds without a row after which a basket ends: sessions of a user's clicks; None: never"
    )
    time: str = chz.field(default="time", doc="array of the log by which `gap` and direction go")
    direction: Literal["both", "forward"] = chz.field(default="both", doc="forward: only from the earlier to the later")
    largest: int = chz.field(default=20, doc="items of a basket; one with more is no household's and is left out")
    least: int = chz.field(default=1, doc="baskets that must show a pair")
    pmi: float | None = chz.field(default=None, doc="least log of how much more often than by chance; None: any")
    similar: str | None = chz.field(
        default=None, doc="npz or parquet file of item vectors: a pair also holds for what is like the given item"
    )
    nearest: int = chz.field(default=1, doc="how many are alike, with `similar`")

    @chz.validate
    def _sizes(self) -> None:
        if self.largest < 2 or self.least < 1 or self.nearest < 1:
            raise ValueError("largest is at least 2, least and nearest are at least 1")

    def make(self) -> InMemory:
        log = self.log.make()
        feature = log.features[self.item]
        if not isinstance(feature, Categorical):
            raise UserError(f"PairsTogether: {self.item!r} is {feature.kind}; pairs are of a categorical feature")
        items, basket, time = (column(log, name) for name in (self.item, self.basket, self.time))
        known = items >= FIRST
        items, basket, time = items[known], basket[known], time[known]
        order = np.lexsort((time, basket))
        items, basket, time = items[order], basket[order], time[order]
        if self.gap is not None:
            basket = cut_by_time(basket, time=time, gap=self.gap)
        pairs = together(items, basket=basket, largest=self.largest)
        pairs = often(pairs, items=items, basket=basket, least=self.least, pmi=self.pmi)
        if self.similar is not None:
            alike = closest(read_vectors(self.similar, rows=feature.size), count=self.nearest)
            pairs = stand_ins(pairs, alike=alike)
        if not len(pairs):
            raise UserError("PairsTogether: the log shows no pair that counts; lower least and pmi, or raise largest")
        if self.direction == "both":
            pairs = np.concatenate([pairs, pairs[:, ::-1]])
        return InMemory(self._columns(pairs), features=self._features(feature))

    def _columns(self, pairs: np.ndarray) -> Rows:
        return {self.given: pairs[:, 0], self.item: pairs[:, 1]}

    def _features(self, item: Categorical) -> Features:
        given: Feature = chz.replace(item, name=self.given, role="user", share=item.table)
        return Features(all=(given, chz.replace(item, role="item", share=item.table)))


def cut_by_time(basket: np.ndarray, *, time: np.ndarray, gap: float) -> np.ndarray:
    """New numbers of baskets that also end where `gap` seconds pass; rows are sorted by basket and time."""
    starts = np.ones(len(basket), bool)
    starts[1:] = (basket[1:] != basket[:-1]) | (time[1:] - time[:-1] > gap)
    return np.cumsum(starts)


def together(items: np.ndarray, *, basket: np.ndarray, largest: int) -> np.ndarray:
    """[n, 2] items of one basket, the earlier first, each pair once a basket; rows are sorted by basket."""
    number = np.unique(basket, return_inverse=True)[1]
    _, first = np.unique(number * np.int64(items.max(initial=0) + 1) + items, return_index=True)
    first.sort()
    items, number = items[first], number[first]
    fits = np.bincount(number)[number] <= largest
    items, number = items[fits], number[fits]
    found = [np.zeros((0, 2), items.dtype)]
    for apart in range(1, largest):
        same = number[apart:] == number[:-apart]
        if not same.any():
            break
        found.append(np.stack([items[:-apart][same], items[apart:][same]], axis=1))
    return np.concatenate(found)


def often(pairs: np.ndarray, *, items: np.ndarray, basket: np.ndarray, least: int, pmi: float | None) -> np.ndarray:
    """Those in at least so many baskets, and more often than chance: log(n_ab n / (n_a n_b)) over baskets."""
    if least == 1 and pmi is None:
        return pairs
    rows = int(items.max(initial=0)) + 1
    low, high = pairs.min(axis=1, initial=rows), pairs.max(axis=1, initial=0)
    _, place, count = np.unique(low * np.int64(rows) + high, return_inverse=True, return_counts=True)
    keep = count[place] >= least
    if pmi is not None:
        number = np.unique(basket, return_inverse=True)[1]
        once = np.unique(number * np.int64(rows) + items) % rows
        of_item, baskets = np.bincount(once, minlength=rows), number.max(initial=0) + 1
        chance = of_item[pairs[:, 0]] * of_item[pairs[:, 1]] / baskets
        keep &= np.log(count[place] / chance) >= pmi
    return pairs[keep]


def closest(vectors: np.ndarray, *, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """[rows, count] the most alike other ids by cosine, of those `among`; 0 where there is no vector."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit, known = vectors / np.maximum(norm, 1e-12), norm[:, 0] > 0
    offered = known if among is None else known & among
    out = np.zeros((len(vectors), count), np.int64)
    for start in range(0, len(vectors), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(vectors)))
        cosine = np.where(offered[None], unit[rows] @ unit.T, -np.inf)
        cosine[np.arange(len(rows)), rows] = -np.inf
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        there = known[rows][:, None] & np.isfinite(np.take_along_axis(cosine, best, 1))
        out[rows, : best.shape[1]] = np.where(there, best, 0)
    return out


def stand_ins(pairs: np.ndarray, *, alike: np.ndarray) -> np.ndarray:
    """The pairs, and after them those of what is alike to the given item; none of an item with itself."""
    others = alike[pairs[:, 0]]
    more = np.stack([others.ravel(), np.repeat(pairs[:, 1], others.shape[1])], axis=1)
    return np.concatenate([pairs, more[(more[:, 0] >= FIRST) & (more[:, 0] != more[:, 1])]])
