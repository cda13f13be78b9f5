"""Listings as notes with hashtags, and the pairs of notes that people took together."""

from typing import Literal

import chz
import numpy as np

from data.co_views import CoViews, co_views
from data.features import FIRST, Features, Label, Text
from data.mall.build import build, shop_of
from data.mall.config import Mall
from data.mall.views.title import LENGTH, titles
from data.mall.views.words import lexicon
from data.sources import InMemory, SourceConfig
from data.transforms.history import Ids

TOPICS = ("leaf", "theme", "top")
"""What the hashtags of a note name: one token each, whatever word, language or typo its text has for it."""


@chz.chz
class MallNotes(SourceConfig):
    """Every listing once: `item`, `title` and the label `topics`."""

    mall: Mall = chz.field(default_factory=lambda: Mall(size="small"))

    def make(self) -> InMemory:
        items = np.arange(self.mall.n_items)
        columns = {"item": FIRST + items, **_note(self.mall, items, prefix="")}
        labels = (Label(name="item", type="class"),)
        return InMemory(columns, features=Features(all=(*_features(self.mall, prefix=""), *labels)))


@chz.chz
class MallNotePairs(SourceConfig):
    """A row per pair that goes together in the days of the split: the note that was seen, and as `other_*` the one that
    was clicked after it; `sought` is the latter's id. In evaluation pairs of the training days are left out."""

    mall: Mall = chz.field(default_factory=lambda: Mall(size="small"))
    split: Literal["train", "test"] = "train"
    rule: CoViews = chz.field(default_factory=CoViews)

    def make(self) -> InMemory:
        mall, log = self.mall, build(self.mall).log.actions
        end = mall.period("train")[1]
        pairs = {}
        for split, when in (("train", log["time"] < end), ("test", log["time"] >= end)):
            part = {name: column[when] for name, column in log.items()}
            pairs[split] = co_views(user=part["user"], item=part["item"], click=part["click"], rule=self.rule)
        found = pairs[self.split]
        first, second = found.first, found.second
        if self.split == "test":
            known = np.isin(first * mall.n_items + second, pairs["train"].first * mall.n_items + pairs["train"].second)
            first, second = first[~known], second[~known]
        columns = {
            **_note(mall, first, prefix=""),
            **_note(mall, second, prefix="other_"),
            "seen": FIRST + first,
            "sought": FIRST + second,
        }
        features = Features(
            all=(
                *_features(mall, prefix=""),
                *_features(mall, prefix="other_"),
                Label(name="seen", type="class"),
                Label(name="sought", type="class"),
            )
        )
        return InMemory(columns, features=features)


def _features(mall: Mall, *, prefix: str) -> tuple[Text, Ids]:
    text = Text(name=f"{prefix}title", role="item", tokens=lexicon(mall).tokens, length=LENGTH)
    return text, Ids(name=f"{prefix}topics", width=len(TOPICS))


def _note(mall: Mall, items: np.ndarray, *, prefix: str) -> dict[str, np.ndarray]:
    shop, words = shop_of(mall), lexicon(mall)
    text, length = titles(mall, shop=shop, items=items)
    leaf = shop.leaf[items]
    values = {"leaf": leaf, "theme": shop.spu_theme[shop.spu[items]], "top": shop.leaf_top[leaf]}
    zero = np.zeros(len(items))
    topics = [words.pick(kind, value=values[kind], second=zero > 0, u=zero) for kind in TOPICS]
    return {
        f"{prefix}title": text,
        f"{prefix}title/length": length,
        f"{prefix}topics": np.stack(topics, axis=1).astype(np.int32),
    }
