"""Searches by picture or by words and what was clicked or bought after them; and what such a search may find.

A search by picture shows the product before another seller's wall: the page image of another listing of it.
"""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Text
from data.mall.build import build, shop_of
from data.mall.config import Mall
from data.mall.funnel import outcomes
from data.mall.listing_pairs import (
    NOBODY,
    ListingPairs,
    Part,
    another,
    class_labels,
    products_of,
)
from data.mall.rng import uniforms
from data.mall.users import favourites
from data.mall.views.text import queries
from data.mall.views.title import LENGTH
from data.mall.views.words import lexicon
from data.sources import SourceConfig
from data.transforms.history import Ids

Split = Literal["train", "valid", "test"]
SHOWN: tuple[Part, ...] = ("image", "title", "path", "stated")
SAME = 4  # further listings of one product that an evaluation leaves out


@chz.chz
class MallSearches(SourceConfig):
    """A row is an action after a search; its product is of the split, so that no product is in two.

    `query_image` is black where the search was by words, and `query_title`, the words, empty where it was by picture.
    `other_*` is another product of the same leaf. Rows of valid and test are one for each listing.
    """

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    action: Literal["click", "purchase"] = "click"
    asked: Literal["either", "image", "words", "listing"] = chz.field(
        default="either", doc="searches that count; listing: the other listing's whole page stands for the product"
    )
    hard: bool = chz.field(default=False, doc="also another product of the same leaf")

    def make(self) -> ListingPairs:
        built = build(self.mall)
        mall, shop, log = built.mall, built.shop, built.log.impressions
        keep = log["click"] if self.action == "click" else outcomes(self.mall)["purchase"]
        keep = keep & products_of(mall, split=self.split)[log["item"]]
        if self.split == "train":
            row = np.flatnonzero(keep & (log["time"] < mall.period("train")[1]))
        else:
            row = np.flatnonzero(keep)
            row = row[np.unique(log["item"][row], return_index=True)[1]]
        u = uniforms(mall.seed, name=f"search {self.action}", ids=row, draws=3)
        item, leaf = log["item"][row], log["query"][row]
        twin = another(shop.spu, among=item, luck=u[:, 0])
        by_words = (leaf >= 0) & ((u[:, 1] < 0.5) | (twin == NOBODY))
        by_words = {"either": by_words, "words": leaf >= 0}.get(self.asked, np.zeros(len(row), bool))
        kept = np.flatnonzero(by_words | (twin >= 0) & (self.asked != "words"))
        row, item, twin, by_words, u = row[kept], item[kept], twin[kept], by_words[kept], u[kept]
        user = log["user"][row]
        wished = favourites(mall, shop=shop)[user]
        asked_leaf = np.where(by_words, log["query"][row], -1)
        words, count = queries(mall, leaf=asked_leaf, wished=wished, users=user, times=log["time"][row])
        wide = np.zeros((len(row), LENGTH), np.int32)
        wide[:, : words.shape[1]] = words
        columns = {"query_title": wide, "query_title/length": count, "spu": shop.spu[item], "sought": FIRST + item}
        columns["hidden"] = _same_product(shop.spu, item)
        text = Text(name="query_title", role="user", tokens=lexicon(mall).tokens, length=LENGTH)
        labels = (*class_labels("spu", "sought"), Ids(name="hidden", width=SAME))
        if self.asked == "listing":
            columns = {name: columns[name] for name in ("spu", "sought", "hidden")}
            return ListingPairs(mall, sides={"": (twin, SHOWN)}, columns=columns, features=labels)
        sides: dict = {"query_": (np.where(by_words, NOBODY, twin), ("image",)), "": (item, SHOWN)}
        if self.hard:
            sides["other_"] = (_neighbour(shop, item=item, luck=u[:, 2]), SHOWN)
        return ListingPairs(mall, sides=sides, columns=columns, features=(text, *labels))


def _neighbour(shop, *, item: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """A listing of another product of the same leaf; NOBODY where one draw finds none."""
    found = another(shop.leaf, among=item, luck=luck)
    return np.where((found >= 0) & (shop.spu[found] != shop.spu[item]), found, NOBODY)


def _same_product(spu: np.ndarray, items: np.ndarray) -> np.ndarray:
    """[n, SAME] ids of other listings of each item's product, padded with 0."""
    order = np.argsort(spu, kind="stable")
    start, count = np.searchsorted(spu[order], spu), np.bincount(spu)[spu]
    place = start[items][:, None] + np.arange(SAME + 1)
    same = order[np.minimum(place, len(spu) - 1)]
    same = np.where((np.arange(SAME + 1) < count[items][:, None]) & (same != items[:, None]), FIRST + same, 0)
    return -np.sort(-same, axis=1)[:, :SAME]


@chz.chz
class MallCatalogue(SourceConfig):
    """Every listing of a split once: what a search may find."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Literal["train", "valid", "test", "all"] = "test"
    parts: tuple[Part, ...] = chz.field(
        default=SHOWN, doc="what is shown; without path and stated, classes must be read from picture and title"
    )

    def make(self) -> ListingPairs:
        shop = shop_of(self.mall)
        items = np.flatnonzero(products_of(self.mall, split=self.split))
        columns = {"item": FIRST + items, "spu": shop.spu[items], "look": looks(self.mall)[items]}
        return ListingPairs(
            self.mall, sides={"": (items, self.parts)}, columns=columns, features=class_labels(*columns)
        )


def looks(mall: Mall) -> np.ndarray:
    """[listings] a number for each leaf, theme, colour and pattern: what a picture shows of a product."""
    shop = shop_of(mall)
    of_product = shop.spu_theme * 32 + shop.spu_attributes[:, 0] * 4 + shop.spu_attributes[:, 1]
    return shop.leaf * 256 + of_product[shop.spu]
