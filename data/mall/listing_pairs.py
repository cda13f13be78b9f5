"""Rows that show several listings side by side: what was asked with, what was meant, and what was not."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

from data.features import Feature, Features, Image, Label, Text
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES
from data.mall.rng import uniforms
from data.mall.views.features import view_columns
from data.mall.views.image import SIDE
from data.mall.views.text import attribute_table
from data.mall.views.title import LENGTH, in_second_language, squeeze
from data.mall.views.words import lexicon
from data.sources import Rows

Part = Literal["image", "title", "path", "stated"]
"""What a listing shows: its picture, title, the words of its category path, those of the attributes it states."""

PATH = 3
NOBODY = -1
"""In place of a listing: its parts are missing, which is a black picture or a text of length 0."""


def part_features(mall: Mall, *, prefix: str, parts: tuple[Part, ...]) -> tuple[Feature, ...]:
    tokens = lexicon(mall).tokens
    lengths = {"title": LENGTH, "path": PATH, "stated": len(ATTRIBUTES)}
    return tuple(
        Image(name=f"{prefix}image", role="item", height=SIDE, width=SIDE)
        if part == "image"
        else Text(name=f"{prefix}{part}", role="item", tokens=tokens, length=lengths[part])
        for part in parts
    )


def part_columns(mall: Mall, *, items: np.ndarray, prefix: str, parts: tuple[Part, ...]) -> Rows:
    """Of listings, or of NOBODY."""
    shop, there = shop_of(mall), items >= 0
    asked = np.where(there, items, 0)
    views = view_columns(mall, shop=shop, items=asked, views=tuple(p for p in ("image", "title") if p in parts))
    for part in parts:
        if part in ("path", "stated"):
            tokens = _texts(mall)[part][asked]
            views |= {part: tokens, f"{part}/length": (tokens > 0).sum(axis=1).astype(np.int32)}
    out = {}
    for name, column in views.items():
        if not there.all():
            column = np.where(there.reshape(-1, *[1] * (column.ndim - 1)), column, 0)
        out[f"{prefix}{name}"] = column
    return out


@lru_cache(maxsize=2)
def _texts(mall: Mall) -> dict[str, np.ndarray]:
    """Words of the category path and of the stated attributes of all listings, in each listing's language."""
    shop, words = shop_of(mall), lexicon(mall)
    items = np.arange(len(shop))
    second = in_second_language(mall, items=items)
    u = uniforms(mall.seed, name="path and attributes", ids=items, draws=PATH + len(ATTRIBUTES))
    leaf = shop.leaf
    levels = {"top": shop.leaf_top[leaf], "mid": shop.leaf_mid[leaf], "leaf": leaf}
    path = [words.pick(k, value=v, second=second, u=u[:, i]) for i, (k, v) in enumerate(levels.items())]
    table = attribute_table(mall, shop=shop, items=items)
    stated = [
        np.where(
            table[:, j] > 0,
            words.pick(name, value=np.maximum(table[:, j] - 1, 0), second=second, u=u[:, PATH + j]),
            0,
        )
        for j, name in enumerate(ATTRIBUTES)
    ]
    return {
        "path": np.stack(path, -1).astype(np.int32),
        "stated": squeeze(np.stack(stated, -1), length=len(ATTRIBUTES))[0],
    }


class ListingPairs:
    """`sides`: prefix of the features -> the listing of each row, and what is shown of it. `columns` are in memory."""

    def __init__(
        self,
        mall: Mall,
        *,
        sides: Mapping[str, tuple[np.ndarray, tuple[Part, ...]]],
        columns: Rows,
        features: tuple[Feature, ...] = (),
    ):
        declared = tuple(
            f for prefix, (_, parts) in sides.items() for f in part_features(mall, prefix=prefix, parts=parts)
        )
        self.features = Features(all=(*declared, *features))
        self.sides, self._mall, self._columns = sides, mall, columns
        self._rows = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = {name: column[indices] for name, column in self._columns.items()}
        for prefix, (items, parts) in self.sides.items():
            rows |= part_columns(self._mall, items=items[indices], prefix=prefix, parts=parts)
        declared = self.features.arrays()
        return {name: rows[name].astype(dtype, copy=False) for name, (_, dtype) in declared.items()}


def products_of(mall: Mall, *, split: str) -> np.ndarray:
    """[listings] whether its product is of the split: 80, 10 and 10 percent, as `MallPairs` has them."""
    shop = shop_of(mall)
    u = uniforms(mall.seed, name="pair split", ids=shop.spu, draws=1)[:, 0]
    low, high = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0), "all": (0.0, 1.0)}[split]
    return (u >= low) & (u < high)


def another(groups: np.ndarray, *, among: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """For each of the listings `among`, another listing of its group, by `luck` in [0, 1); NOBODY if there is none."""
    order = np.argsort(groups, kind="stable")
    start = np.searchsorted(groups[order], groups)
    count = np.bincount(groups)[groups]
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups))
    step = 1 + (luck * (count[among] - 1)).astype(np.int64)
    found = order[start[among] + (place[among] - start[among] + step) % count[among]]
    return np.where(count[among] > 1, found, NOBODY)


def class_labels(*names: str) -> tuple[Feature, ...]:
    return tuple(Label(name=name, type="class") for name in names)
