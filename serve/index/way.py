"""The lists of an index as it is served, for an evaluation that says what its approximation costs.

RetrieveLists(way=ByIndex(engine="scann"), one_by_one=500, ...) measures recall of the targets, `ExactRecall`, which is
what is kept of the exact list, and the time of a query, beside way=Nearest() on the same vectors.
"""

from typing import Literal

import chz
import numpy as np

from serve.index.base import Index
from serve.index.build import build, build_live
from train.ways import Search, Way


@chz.chz
class ByIndex(Way):
    """ScaNN's settings are chosen on rows of the index, as `serve index` does where it is given no queries."""

    engine: Literal["exact", "scann", "live"] = chz.field(default="scann", doc="live: ScaNN that has taken updates")
    recall: float = chz.field(default=0.95, doc="of the ten nearest, at which ScaNN's settings aim")
    updated: float = chz.field(
        default=0.2, doc="live: share of the items whose vectors came after it was built, in place of others"
    )
    threads: int = chz.field(default=1, doc="of ScaNN")
    seed: int = chz.field(default=0, doc="live: draws the items that are updated")

    @chz.validate
    def _shares(self) -> None:
        if not 0 < self.recall <= 1 or not 0 <= self.updated <= 1:
            raise ValueError(f"recall and updated are shares, not {self.recall} and {self.updated}")

    def open(self, items: np.ndarray) -> Search:
        index = self.index(np.ascontiguousarray(items, np.float32))

        def search(queries: np.ndarray, *, own: np.ndarray | None, k: int) -> np.ndarray:
            hides = 0 if own is None else own.shape[1]
            found, scores = index.search(queries.astype(np.float32), k=min(k + hides, len(index)))
            rows = np.where(np.isfinite(scores), found, -1)
            if own is None:
                return rows[:, :k]
            hidden = (rows[:, :, None] == own[:, None, :]).any(axis=2)
            order = np.argsort(hidden, axis=1, kind="stable")  # what is not to be shown goes behind the list
            return np.take_along_axis(np.where(hidden, -1, rows), order, axis=1)[:, :k]

        return search

    def index(self, items: np.ndarray) -> Index:
        """Ids are the rows of `items`."""
        ids = np.arange(len(items))
        if self.engine != "live":
            return build(items, ids=ids, engine=self.engine, recall=self.recall, threads=self.threads)
        fresh = np.random.default_rng(self.seed).permutation(len(items))[: round(self.updated * len(items))]
        stale = items.copy()
        stale[fresh] = items[np.roll(fresh, 1)]
        # Not merged: what is measured is an index in the middle of its life, with dead rows and new ones beside it.
        live = build_live(stale, ids=ids, recall=self.recall, threads=self.threads, merge_by_itself=False)
        live.upsert(fresh, items[fresh])
        return live
