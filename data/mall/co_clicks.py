"""Pairs that a click makes: what was taken, and the photo it was searched with or a listing looked at before."""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST
from data.mall.build import build, pointers
from data.mall.config import Mall
from data.mall.funnel import outcomes
from data.mall.image_search import ImageSearch, clicked
from data.mall.listing_pairs import NOBODY, ListingPairs, Part, another, class_labels
from data.mall.rng import uniforms
from data.sources import SourceConfig

RECENT = 50  # past actions among which the earlier listing is sought
BLOCK = 1 << 14
SHOWN: tuple[Part, ...] = ("image", "title")


@chz.chz
class MallCoClicks(SourceConfig):
    """`query_image` shows what was asked with: the photo of a search, or, of the "past", the newest earlier listing of
    the same leaf and another product; without one: no row.

    Splits are those of time, as the click towers have them. `other_*` is a listing of the same leaf by chance.
    """

    mall: Mall = chz.field(default_factory=Mall)
    split: Literal["train", "valid", "test"] = "train"
    asked: Literal["past", "search"] = "past"
    action: Literal["click", "purchase"] = "click"
    hard: bool = chz.field(default=False, doc="also another listing of the same leaf")
    most: int | None = chz.field(default=None, doc="rows kept, evenly over time; None: all")

    @chz.validate
    def _of_search(self) -> None:
        if self.asked == "search" and self.action == "purchase":
            raise ValueError("MallCoClicks: searches by photo end with a click; set action=click")

    def make(self) -> ListingPairs:
        mall, shop = self.mall, build(self.mall).shop
        before, item = self._searched() if self.asked == "search" else self._taken()
        if self.most is not None and len(item) > self.most:
            chosen = np.linspace(0, len(item) - 1, self.most).astype(np.int64)
            before, item = before[chosen], item[chosen]
        sides: dict = {"query_": (before, ("image",)), "": (item, SHOWN)}
        if self.hard:
            luck = uniforms(mall.seed, name=f"co-click {self.action}", ids=np.arange(len(item)), draws=1)[:, 0]
            other = another(shop.leaf, among=item, luck=luck)
            sides["other_"] = (np.where(shop.spu[other] == shop.spu[item], NOBODY, other), SHOWN)
        columns = {"spu": shop.spu[item], "sought": FIRST + item, "hidden": FIRST + before}
        return ListingPairs(mall, sides=sides, columns=columns, features=class_labels(*columns))

    def _searched(self) -> tuple[np.ndarray, np.ndarray]:
        start, end = self.mall.period(self.split)
        found = clicked(ImageSearch(mall=self.mall), start=start, end=end)
        return found["query"], found["item"]

    def _taken(self) -> tuple[np.ndarray, np.ndarray]:
        built = build(self.mall)
        log, (start, end) = built.log.impressions, self.mall.period(self.split)
        keep = log["click"] if self.action == "click" else outcomes(self.mall)["purchase"]
        row = np.flatnonzero(keep & (log["time"] >= start) & (log["time"] < end))
        before = earlier(
            built.log.actions, user=log["user"][row], time=log["time"][row], item=log["item"][row], shop=built.shop
        )
        return before[before >= 0], log["item"][row[before >= 0]]


def earlier(actions, *, user: np.ndarray, time: np.ndarray, item: np.ndarray, shop) -> np.ndarray:
    """The newest of a user's last RECENT listings before a time of `item`'s leaf and of another product, or -1."""
    start, end = pointers(actions, user=user, time=time)
    found = np.full(len(user), NOBODY)
    for at in range(0, len(user), BLOCK):
        rows = slice(at, at + BLOCK)
        place = end[rows, None] - 1 - np.arange(RECENT)
        past = actions["item"][np.maximum(place, 0)]
        fits = (place >= start[rows, None]) & (shop.leaf[past] == shop.leaf[item[rows]][:, None])
        fits &= shop.spu[past] != shop.spu[item[rows]][:, None]
        first = fits.argmax(axis=1)
        found[rows] = np.where(fits.any(axis=1), past[np.arange(len(past)), first], NOBODY)
    return found
