"""Products of one style in the mall: pairs that photo searches were clicked for, and the truth to judge by.

The departments of odd number are hardware: all listings of a leaf share one stock photo, so that words decide. Those of
even number are fashion, whose pictures say what they are.
"""

from functools import lru_cache
from typing import Literal

import chz
import numpy as np

from data.clicked_pairs import Clicked, ClickRule, clicked_pairs, co_clicked, words_in_common
from data.errors import UserError
from data.features import FIRST
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.image_search import ImageSearch, clicked
from data.mall.latents import Catalogue
from data.mall.listing_pairs import ListingPairs, Part, another, class_labels, products_of
from data.mall.rng import uniforms
from data.mall.views.features import view_columns
from data.mall.views.title import titles
from data.sources import Rows, SourceConfig
from data.transforms.history import Ids

Family = Literal["all", "fashion", "hardware"]
PARTS: tuple[Part, ...] = ("image", "title")
CO_CLICKED = 8  # other offers of a trigger that a row names


class Styled(ListingPairs):
    """Listings whose pictures are a stock photo where they are hardware."""

    def __init__(self, mall: Mall, *, stock: bool, **given):
        super().__init__(mall, **given)
        self._shop, self._stock = shop_of(mall), stock

    def take(self, indices: np.ndarray) -> Rows:
        rows = super().take(indices)
        if not self._stock:
            return rows
        for prefix, (items, parts) in self.sides.items():
            plain = np.flatnonzero(is_hardware(self._shop)[items[indices]] & (items[indices] >= 0))
            if "image" in parts and len(plain):
                stock = self._shop.first(self._shop.leaf[items[indices][plain]])
                picture = view_columns(self._mall, shop=self._shop, items=stock, views=("image",))["image"]
                rows[f"{prefix}image"] = rows[f"{prefix}image"].copy()
                rows[f"{prefix}image"][plain] = picture
        return rows


def is_hardware(shop: Catalogue) -> np.ndarray:
    """[listings]"""
    return shop.leaf_top[shop.leaf] % 2 == 1


@lru_cache(maxsize=4)
def pairs_of(law: ImageSearch, rule: ClickRule, split: str) -> Clicked:
    """The pairs of the training days' clicks among products of a split."""
    shop = shop_of(law.mall)
    found = clicked(law, start=0, end=law.mall.period("train")[1])
    user, trigger, offer = found["user"], found["query"], found["item"]
    known = products_of(law.mall, split=split)
    keep = known[trigger] & known[offer]
    trigger, offer, user = trigger[keep], offer[keep], user[keep]
    words = titles(law.mall, shop=shop, items=np.arange(len(shop)))[0]
    relevance = words_in_common(words[trigger], words[offer])
    return clicked_pairs(trigger=trigger, offer=offer, user=user, rule=rule, category=shop.leaf, relevance=relevance)


@chz.chz
class MallClickedPairs(SourceConfig):
    """A row is a pair of a clicked search: the views of the trigger, and those of the offer as `offer_*`.

    `co_clicked` are the ids of other offers of that trigger. No product of the evaluation is in any row.
    """

    search: ImageSearch = chz.field(default_factory=ImageSearch)
    rule: ClickRule = chz.field(default_factory=ClickRule)
    parts: tuple[Part, ...] = PARTS
    stock: bool = chz.field(default=True, doc="hardware has stock photos")
    split: Literal["train", "all"] = chz.field(default="train", doc="products: 80 percent, or all of them")

    def make(self) -> Styled:
        mall, pairs = self.search.mall, pairs_of(self.search, self.rule, self.split)
        if not len(pairs.trigger):
            raise UserError("MallClickedPairs: no pair meets the rule; lower rule.users or rule.relevance")
        shop = shop_of(mall)
        columns = {
            "trigger": FIRST + pairs.trigger,
            "offer": FIRST + pairs.offer,
            "leaf": shop.leaf[pairs.offer],
            "co_clicked": FIRST + co_clicked(pairs, width=CO_CLICKED),
        }
        columns["co_clicked"][columns["co_clicked"] < FIRST] = 0
        sides = {"": (pairs.trigger, self.parts), "offer_": (pairs.offer, self.parts)}
        features = (*class_labels("trigger", "offer", "leaf"), Ids(name="co_clicked", width=CO_CLICKED))
        return Styled(mall, stock=self.stock, sides=sides, columns=columns, features=features)


@chz.chz
class MallSameStyle(SourceConfig):
    """The truth: a product a row, by one listing of it and, as `offer_*`, by another."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Literal["train", "valid", "test"] = "test"
    family: Family = "all"
    parts: tuple[Part, ...] = PARTS
    stock: bool = chz.field(default=True, doc="hardware has stock photos")

    def make(self) -> Styled:
        shop = shop_of(self.mall)
        rows = np.flatnonzero(products_of(self.mall, split=self.split))
        rows = rows[np.unique(shop.spu[rows], return_index=True)[1]]
        luck = uniforms(self.mall.seed, name="same style", ids=rows, draws=1)[:, 0]
        twin = another(shop.spu, among=rows, luck=luck)
        keep = twin >= 0
        if self.family != "all":
            keep &= is_hardware(shop)[rows] == (self.family == "hardware")
        rows, twin = rows[keep], twin[keep]
        sides = {"": (rows, self.parts), "offer_": (twin, self.parts)}
        columns = {"spu": shop.spu[rows]}
        return Styled(self.mall, stock=self.stock, sides=sides, columns=columns, features=class_labels("spu"))
