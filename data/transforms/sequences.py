"""Histories in other shapes: shorter, as random windows, with masked positions."""

import chz
import numpy as np

from data.errors import UserError
from data.features import Feature, Features, Sequence
from data.sources import Rows, Source
from data.transforms.base import Bound, Transform
from data.transforms.history import Ids


@chz.chz
class Truncate(Transform):
    """The newest `length` positions of each history."""

    history: str = chz.field(default="history", doc="sequence to cut")
    length: int = chz.field(doc="positions kept")

    def features(self, features: Features) -> Features:
        return with_length(features, self.history, self.length)

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        length = batch[f"{self.history}/length"]
        kept = np.minimum(length, self.length)
        return window(batch, self.history, start=length - kept, length=kept, width=self.length)


@chz.chz
class Subsequence(Transform):
    """A random window of each history, another in every epoch."""

    history: str = chz.field(default="history", doc="sequence to cut")
    length: int = chz.field(doc="positions of the longest window")
    least: int = chz.field(default=1, doc="positions of the shortest window, where the history has them")

    def features(self, features: Features) -> Features:
        return with_length(features, self.history, self.length)

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        length = batch[f"{self.history}/length"]
        most = np.minimum(length, self.length)
        least = np.minimum(most, self.least)
        size = least + np.floor(rng.random(len(length)) * (most - least + 1)).astype(length.dtype)
        start = np.floor(rng.random(len(length)) * (length - size + 1)).astype(length.dtype)
        return window(batch, self.history, start=start, length=size, width=self.length)


@chz.chz
class Cloze(Transform):
    """BERT4Rec's masks: `targets` holds the item under each mask and 0 elsewhere.

    The mask is one row more at the end of the table.
    """

    history: str = chz.field(default="history", doc="sequence to mask")
    rate: float = chz.field(default=0.2, doc="share of positions masked; at least one in each history")
    last: float = chz.field(
        default=0.0, doc="share of the rows in which the newest item alone is masked, as it is to predict"
    )
    target: str | None = chz.field(
        default=None,
        doc="label with the item after the history, which joins it first; a full history gives up its oldest",
    )

    @chz.validate
    def _shares(self) -> None:
        if not (0 <= self.rate <= 1 and 0 <= self.last <= 1):
            raise ValueError(f"rate is {self.rate} and last {self.last}; give shares from 0 to 1")

    def features(self, features: Features) -> Features:
        sequence = _sequence(features, self.history)
        longer = Features(all=tuple(_with_rows(f, table=sequence.table, rows=sequence.size + 1) for f in features.all))
        return longer.plus(Ids(name="targets", length=sequence.length))

    def bind(self, source: Source) -> Bound:
        if self.target is not None and self.target not in source.features:
            raise UserError(f"Cloze: the source has no label {self.target!r}; set target=None")
        return _Cloze(self, mask=_sequence(source.features, self.history).size)


class _Cloze:
    def __init__(self, config: Cloze, *, mask: int):
        self.config, self.mask = config, mask

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        name = self.config.history
        if self.config.target is not None:
            batch = joined(batch, name, batch[self.config.target])
        history, length = batch[name], batch[f"{name}/length"]
        place = np.arange(history.shape[1])
        newest = place == length[:, None] - 1
        hidden = (rng.random(history.shape) < self.config.rate) & (place < length[:, None])
        alone = rng.random(len(history)) < self.config.last
        hidden = np.where((alone | ~hidden.any(axis=1))[:, None], newest, hidden)
        return {**batch, name: np.where(hidden, self.mask, history), "targets": np.where(hidden, history, 0)}


def _with_rows(feature: Feature, *, table: str, rows: int) -> Feature:
    if feature.table != table or not feature.size:
        return feature
    if isinstance(feature, Sequence):
        return chz.replace(feature, of=chz.replace(feature.of, rows=rows))
    return chz.replace(feature, rows=rows)


def window(batch: Rows, name: str, *, start: np.ndarray, length: np.ndarray, width: int) -> Rows:
    """Positions [start, start + length) of sequence `name`, padded to `width`."""
    values = batch[name]
    held = np.arange(width) < length[:, None]
    at = np.minimum(start[:, None] + np.arange(width), values.shape[1] - 1)
    cut = values[np.arange(len(values))[:, None], at]
    cut[~held] = 0
    return {**batch, name: cut, f"{name}/length": length.astype(batch[f"{name}/length"].dtype)}


def joined(batch: Rows, name: str, item: np.ndarray) -> Rows:
    """Sequence `name` with one item more; a full one gives up its oldest. An item of 0 is none."""
    length, width = batch[f"{name}/length"], batch[name].shape[1]
    drop = ((length == width) & (item > 0)).astype(length.dtype)
    cut = window(batch, name, start=drop, length=length - drop, width=width)
    more = (np.arange(width) == (length - drop)[:, None]) & (item > 0)[:, None]
    longer = np.where(more, item[:, None], cut[name]).astype(batch[name].dtype)
    return {**cut, name: longer, f"{name}/length": (length - drop + (item > 0)).astype(length.dtype)}


def with_length(features: Features, name: str, length: int) -> Features:
    _sequence(features, name)
    changed = [chz.replace(f, length=length) if f.name == name else f for f in features.all]
    return Features(all=tuple(changed))


def _sequence(features: Features, name: str) -> Sequence:
    feature = features[name]
    if not isinstance(feature, Sequence):
        raise UserError(f"{name!r} is no sequence but {feature.kind}")
    return feature
