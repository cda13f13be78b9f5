"""Negatives by popularity or from an index, and the log sampling rates that undo their bias."""

from typing import Literal

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Features, Truth
from data.hashing import mix
from data.sources import Rows, Source
from data.splits import column
from data.transforms.base import Bound, Transform
from data.transforms.history import Ids

TRIES = 4
"""Draws for a negative that must not be the target; what still is one goes to the next item."""


@chz.chz
class PopularityNegatives(Transform):
    """`negatives` drawn with probability count^alpha, never the row's target; alpha 0 is uniform.

    Adds `negatives/logq` and `targets/logq`, so that a sampled softmax can take the bias back.
    """

    items: str = chz.field(default="history", doc="feature of the source whose ids are counted and drawn")
    target: str = chz.field(default="targets", doc="ids that are not drawn in their own row: [b] or [b, t]")
    alpha: float = chz.field(default=0.75, doc="0: uniform over the items seen; 1: as popular")
    count: int = chz.field(default=1, doc="negatives of a position, or of a row")

    def features(self, features: Features) -> Features:
        target = features[self.target]
        length = target.shape[0] if target.shape else None
        return features.plus(
            Ids(name="negatives", length=length, width=self.count),
            Rates(name="negatives/logq", length=length, width=self.count),
            Rates(name="targets/logq", length=length),
        )

    def bind(self, source: Source) -> Bound:
        return _Popularity(self, counts=count(source, self.items))


@chz.chz
class Rates(Ids):
    """Log sampling rates that lie beside ids."""

    type: Literal["binary", "real", "class"] = "real"


class _Popularity:
    def __init__(self, config: PopularityNegatives, *, counts: np.ndarray):
        counts = counts.astype(np.float64)
        counts[:FIRST] = 0
        if (counts > 0).sum() < 2:
            raise UserError(f"PopularityNegatives needs two items or more in {config.items!r}")
        weights = np.where(counts > 0, counts**config.alpha, 0)
        self.config, self.share = config, weights / weights.sum()
        self.known = np.flatnonzero(weights)
        self.accept, self.alias = alias_table(self.share[self.known])
        with np.errstate(divide="ignore"):
            self.logq = np.maximum(np.log(self.share), np.log(self.share[self.known].min())).astype(np.float32)

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        target = batch[self.config.target]
        shape = (*target.shape, self.config.count)
        bits = (rng.random(shape) * 2.0**53).astype(np.uint64)
        at = self._draw(bits)
        for attempt in range(1, TRIES):  # further draws follow from the first: the generator moves on equally for all
            same = self.known[at] == target[..., None]
            if not same.any():
                break
            at[same] = self._draw(mix(bits[same] + np.uint64(attempt)) >> np.uint64(11))
        at = np.where(self.known[at] == target[..., None], (at + 1) % len(self.known), at)
        negatives = self.known[at].astype(target.dtype)
        rates = {"negatives/logq": self.logq[negatives], "targets/logq": self.logq[target]}
        return {**batch, "negatives": negatives, **rates}

    def _draw(self, bits: np.ndarray) -> np.ndarray:
        """Walker's alias method on 53 random bits: a column and whether it keeps its own."""
        scaled = bits.astype(np.float64) * (len(self.known) / 2.0**53)
        column_ = np.minimum(scaled.astype(np.int64), len(self.known) - 1)
        return np.where(scaled - column_ < self.accept[column_], column_, self.alias[column_])


@chz.chz
class LogQ(Transform):
    """Adds `<item>_logq`: the log share of each row's item among the rows, for softmax over the batch's items."""

    item: str = chz.field(default="item", doc="categorical feature")

    def features(self, features: Features) -> Features:
        return features.plus(Truth(name=f"{self.item}_logq"))

    def bind(self, source: Source) -> Bound:
        counts = np.maximum(count(source, self.item), 1)
        return _LogQ(self.item, np.log(counts / max(len(source), 1)).astype(np.float32))


class _LogQ:
    def __init__(self, item: str, logq: np.ndarray):
        self.item, self.logq = item, logq

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        return {**batch, f"{self.item}_logq": self.logq[batch[self.item]]}


@chz.chz
class HardNegatives(Transform):
    """`negatives` [b, count] drawn from each target's neighbours, as an index search wrote them.

    The file is `.npy` with a row of neighbour ids per item id, nearest first; ids below 2 mean none.
    """

    path: str = chz.field(doc=".npy of [rows of the item table, neighbours]")
    item: str = chz.field(default="item", doc="categorical feature whose neighbours are drawn")
    count: int = chz.field(default=1, doc="negatives of a row")
    skip: int = chz.field(default=0, doc="nearest neighbours left out, which may be the same product")

    def features(self, features: Features) -> Features:
        return features.plus(Ids(name="negatives", width=self.count))

    def bind(self, source: Source) -> Bound:
        try:
            neighbours = np.load(self.path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"HardNegatives: {self.path} is no .npy file ({error})") from error
        rows = source.features[self.item].size
        if neighbours.ndim != 2 or len(neighbours) < rows or neighbours.shape[1] <= self.skip:
            raise UserError(
                f"HardNegatives: {self.path} has shape {neighbours.shape}; needs at least ({rows}, {self.skip + 1})"
            )
        return _Hard(self, neighbours)


class _Hard:
    def __init__(self, config: HardNegatives, neighbours: np.ndarray):
        self.config, self.neighbours = config, neighbours

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        item = batch[self.config.item]
        near = np.asarray(self.neighbours[item][:, self.config.skip :])
        key = rng.random(near.shape)
        key[(near < FIRST) | (near == item[:, None])] = 2.0  # drawn last, and given as 0
        chosen = np.argsort(key, axis=1)[:, : self.config.count]
        negatives = np.where(np.take_along_axis(key, chosen, 1) < 2, np.take_along_axis(near, chosen, 1), 0)
        wide = np.zeros((len(item), self.config.count), np.int32)
        wide[:, : negatives.shape[1]] = negatives
        return {**batch, "negatives": wide}


def count(source: Source, name: str) -> np.ndarray:
    """How often each id of feature `name` occurs in the source, padding left out."""
    feature = source.features[name]
    if not feature.size:
        raise UserError(f"{name!r} has no ids to count but is {feature.kind}")
    ids = column(source, name)
    if ids.ndim > 1:
        ids = ids[np.arange(ids.shape[1]) < column(source, f"{name}/length")[:, None]]
    return np.bincount(ids, minlength=feature.size)


def alias_table(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's tables: column i keeps itself with probability accept[i], else gives alias[i]. Linear, once a source."""
    size = len(share)
    accept, alias = share * size, np.arange(size)
    small, large = list(np.flatnonzero(accept < 1)), list(np.flatnonzero(accept >= 1))
    while small and large:
        low, high = small.pop(), large.pop()
        alias[low] = high
        accept[high] -= 1 - accept[low]
        (small if accept[high] < 1 else large).append(high)
    accept[small + large] = 1  # what rounding left over
    return accept, alias
