"""Stage of a pipeline: items by what is like them."""

from collections.abc import Mapping
from pathlib import Path

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST
from data.sources import SourceConfig
from data.splits import column
from data.vectors import read
from serve.neighbours import near, table_of
from train.pipeline import Results, Say, Stage


@chz.chz
class Neighbours(Stage):
    """`neighbours.npy` in this stage's folder: a row of ids per id that asks, nearest first, 0 past the end."""

    of: str = chz.field(doc="vectors of the items, such as @items/vectors.npz")
    queries: str | None = chz.field(default=None, doc="vectors of what asks, of another domain; None: the items")
    count: int = 50
    source: SourceConfig | None = chz.field(default=None, doc="rows of the items, for the constraints")
    key: str = chz.field(default="item", doc="array of those rows that identifies the item")
    same: tuple[str, ...] = chz.field(default=(), doc="arrays of ids that must be equal; 0 and 1 are nobody's")
    within: Mapping[str, float] = chz.field(
        default_factory=dict, doc="arrays of numbers, with the share they may differ by"
    )
    least: float = chz.field(default=-1.0, doc="least cosine of a neighbour")

    @chz.validate
    def _constraints_have_rows(self) -> None:
        if (self.same or self.within) and (self.source is None or self.queries is not None):
            raise ValueError("same and within compare items with items: give their source, and leave queries out")

    def run(self, *, out: Path, say: Say) -> Results:
        ids, items, model = read(Path(self.of))
        asking, asks = (ids, items) if self.queries is None else read(Path(self.queries), model=model)[:2]
        same, within = [], []
        if self.source is not None:
            rows = self.source.make()
            key, first = np.unique(column(rows, self.key), return_index=True)
            place = np.searchsorted(key, ids).clip(max=len(key) - 1)
            if (key[place] != ids).any():
                raise UserError(f"{self.of} holds {int((key[place] != ids).sum())} items that the source does not have")
            at = first[place]
            same = [np.where(v >= FIRST, v, -1) for v in (column(rows, name)[at] for name in self.same)]
            within = [(column(rows, name)[at].astype(np.float64), share) for name, share in self.within.items()]
        found = near(
            asks, items, count=self.count, itself=self.queries is not None, same=same, within=within, least=self.least
        )
        np.save(out / "neighbours.npy", table_of(found.rows, asking=asking, ids=ids))
        held = (found.rows >= 0).sum(axis=1)
        say(f"{len(asking):,} rows, {held.mean():.1f} neighbours on average, {(held == 0).sum():,} rows with none")
        return {"rows": len(asking), "neighbours": float(held.mean()), "alone": int((held == 0).sum())}
