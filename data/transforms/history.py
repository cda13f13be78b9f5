"""What next-item models train on: a target for each position of a history, and negatives for it."""

from typing import Literal

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Features, Label, Sequence, Shape
from data.sources import Rows, Source
from data.transforms.base import Bound, Transform


@chz.chz
class Ids(Label):
    """Ids that a task compares with: an entry, or `width` entries, per position, or per row without `length`."""

    type: Literal["binary", "real", "class"] = "class"
    length: int | None = None
    width: int | None = None

    @property
    def shape(self) -> Shape:
        return tuple(n for n in (self.length, self.width) if n is not None)


@chz.chz
class NextTargets(Transform):
    """`targets[:, t]` is the item after position t of the history, 0 where there is none.

    The newest position's target is the label `target`; without one the history gives up its newest item for it.
    """

    history: str = chz.field(default="history", doc="sequence of item ids")
    target: str | None = chz.field(default=None, doc="label with the item after the history, where the source has one")

    def features(self, features: Features) -> Features:
        if self.target is not None and self.target not in features:
            raise UserError(
                f"NextTargets: the source has no label {self.target!r}; set target=None to shift the history"
            )
        return features.plus(Ids(name="targets", length=sequence_of_ids(features, self.history).length))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        history, length = batch[self.history], batch[f"{self.history}/length"]
        targets = np.zeros_like(history)
        targets[:, :-1] = history[:, 1:]
        rows, last = np.arange(len(history)), np.maximum(length - 1, 0)
        if self.target is not None:
            targets[rows, last] = np.where(length > 0, batch[self.target], 0)
            return {**batch, "targets": targets}
        shorter = history.copy()
        shorter[rows, last] = 0
        return {**batch, self.history: shorter, f"{self.history}/length": last.astype(length.dtype), "targets": targets}


@chz.chz
class RandomPrefix(Transform):
    """The history up to a place drawn for each row, and `target`, the item after it: one target a row, not one a place.

    Where the rows have that label, it follows the whole history, and may be drawn as well; without, a history of a
    single item has no target, and 0 stands for it.
    """

    history: str = chz.field(default="history", doc="sequence of item ids")
    target: str = chz.field(default="target", doc="name of the label")

    def features(self, features: Features) -> Features:
        sequence_of_ids(features, self.history)
        return features if self.target in features else features.plus(Ids(name=self.target))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        history, length = batch[self.history], batch[f"{self.history}/length"]
        rows, known = np.arange(len(history)), batch.get(self.target)
        places = length - 1 if known is None else length
        place = 1 + np.floor(rng.random(len(history)) * np.maximum(places, 1)).astype(np.int64)
        cut = np.minimum(place, length).astype(length.dtype)
        within = history[rows, np.minimum(place, history.shape[1] - 1)]
        target = np.where(place < length, within, 0 if known is None else known)
        kept = np.where(np.arange(history.shape[1]) < cut[:, None], history, 0)
        return {**batch, self.history: kept, f"{self.history}/length": cut, self.target: target.astype(history.dtype)}


@chz.chz
class UniformNegatives(Transform):
    """`negatives`: items drawn uniformly. Where one is the target after all, the loss leaves it out."""

    count: int = chz.field(default=1, doc="negatives of a position, or of a row if shared")
    shared: bool = chz.field(default=False, doc="one draw for all positions of a row: [b, n] instead of [b, t, n]")
    history: str = chz.field(default="history", doc="sequence whose items these are")

    def features(self, features: Features) -> Features:
        length = None if self.shared else sequence_of_ids(features, self.history).length
        return features.plus(Ids(name="negatives", length=length, width=self.count))

    def bind(self, source: Source) -> Bound:
        return _Uniform(self, rows=sequence_of_ids(source.features, self.history).size)


class _Uniform:
    def __init__(self, config: UniformNegatives, *, rows: int):
        self.config, self.rows = config, rows

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        rows, length = batch[self.config.history].shape
        shape = (rows, self.config.count) if self.config.shared else (rows, length, self.config.count)
        return {**batch, "negatives": rng.integers(FIRST, self.rows, size=shape, dtype=np.int32)}


def sequence_of_ids(features: Features, name: str) -> Sequence:
    feature = features[name]
    if not isinstance(feature, Sequence) or not feature.size:
        raise UserError(f"{name!r} is no sequence of ids but {feature.kind}")
    return feature
