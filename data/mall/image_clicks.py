"""Impressions of the mall's photo searches for click towers, by the biased log or by uniform slots."""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Categorical, Dense, Features, Label, Numeric, Truth
from data.mall.build import shop_of
from data.mall.image_search import ImageSearch, searches
from data.mall.sources import Split, item_columns, item_features
from data.mall.vectors import read_vectors
from data.sources import InMemory, Rows, SourceConfig


@chz.chz
class MallImageClicks(SourceConfig):
    """One row per impression. `exposure` is the share of items shown less often in the training days."""

    search: ImageSearch = chz.field(default_factory=ImageSearch)
    split: Split = "train"
    shown: Literal["logged", "uniform"] = chz.field(
        default="logged", doc="logged: what the shop showed; uniform: slots filled by chance that everyone looks at"
    )
    content: str | None = chz.field(default=None, doc="item vectors {id, vector}, of photos and items alike")
    anchor: str | None = chz.field(default=None, doc="item vectors of self-supervision alone")

    def make(self) -> "ImageClicks":
        mall, log = self.search.mall, searches(self.search)
        shop, (start, end) = shop_of(mall), mall.period(self.split)
        keep = np.flatnonzero((log["time"] >= start) & (log["time"] < end))
        prefix = "uniform_" if self.shown == "uniform" else ""
        item = log[f"{prefix}item"][keep]
        slots = item.shape[1]
        query = np.repeat(log["query"][keep], slots)
        slot = np.tile(np.arange(slots), len(keep)) if self.shown == "logged" else np.zeros(item.size, np.int64)
        item = item.ravel()
        columns = {
            **item_columns(shop, item),
            "query_category": FIRST + shop.leaf[query],
            "position": FIRST + slot,
            "exposure": exposure(self.search)[item],
            "click": log[f"{prefix}click"][keep].ravel(),
            "relevance": log[f"{prefix}relevance"][keep].ravel(),
            "query": FIRST + query,
        }
        rows = FIRST + mall.n_items
        files = {"content": self.content, "query_content": self.content, "anchor": self.anchor}
        vectors = {name: read_vectors(path, rows=rows) for name, path in files.items() if path is not None}
        dense = tuple(
            Dense(name=n, role="context" if n == "query_content" else "item", dim=v.shape[1])
            for n, v in vectors.items()
        )
        features = Features(
            all=(
                *item_features(mall),
                Categorical(name="query_category", role="context", rows=FIRST + mall.leaves, share="category"),
                Categorical(name="position", role="context", rows=FIRST + slots),
                Numeric(name="exposure", role="item"),
                *dense,
                Label(name="click"),
                Truth(name="relevance"),
            )
        )
        return ImageClicks(columns, features=features, vectors=vectors)


def exposure(law: ImageSearch) -> np.ndarray:
    """[listings] share of the listings with fewer impressions in the training days, half of those with as many."""
    log = searches(law)
    end = law.mall.period("train")[1]
    count = np.bincount(log["item"][log["time"] < end].ravel(), minlength=law.mall.n_items)
    order = np.sort(count)
    below = (np.searchsorted(order, count, side="left") + np.searchsorted(order, count, side="right")) / 2
    return (below / len(count)).astype(np.float32)


class ImageClicks(InMemory):
    """Columns in memory; vectors are gathered when rows are taken."""

    def __init__(self, columns: Rows, *, features: Features, vectors: Rows):
        super().__init__(columns, features=features.without(*vectors))
        self.features, self._vectors, self._query = features, vectors, columns["query"]

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = super().take(indices)
        for name, vectors in self._vectors.items():
            rows[name] = vectors[self._query[indices] if name == "query_content" else rows["item"]]
        return rows
