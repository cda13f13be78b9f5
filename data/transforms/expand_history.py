"""What a person did in another domain, as the items of this one that are most like it.

One of the uses of COPE's space (Bai et al., ICCV 2023): who watched a video of a product has shown an interest in it,
and a tower of the shop can read that only as products of the shop.
"""

from pathlib import Path

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Features, Sequence
from data.sources import Rows, Source
from data.transforms.base import Bound, Transform


@chz.chz
class ExpandHistory(Transform):
    """Puts the neighbours of `other`'s ids into `history`, which keeps its length and its newest.

    With `times` both go in their order; without, what was done elsewhere comes before what was done here. An id without
    a neighbour says nothing here and is passed over.
    """

    path: str = chz.field(doc=".npy that `serve neighbours --queries` wrote: a row of items per id of the other domain")
    other: str = chz.field(default="watched", doc="sequence of ids of the other domain")
    history: str = chz.field(default="history", doc="sequence of item ids")
    count: int = chz.field(default=1, doc="neighbours taken of each")
    times: tuple[str, str] | None = chz.field(default=None, doc="arrays with the times of history and of other")

    @chz.validate
    def _takes_some(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}; at least one neighbour is taken")

    def features(self, features: Features) -> Features:
        for name in (self.history, self.other):
            if not isinstance(features[name], Sequence) or not features[name].size:
                raise UserError(f"ExpandHistory: {name!r} is no sequence of ids but {features[name].kind}")
        return features

    def bind(self, source: Source) -> Bound:
        if not Path(self.path).is_file():
            raise UserError(f"ExpandHistory: {self.path} is no file; write it with `python -m serve neighbours`")
        try:
            near = np.load(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"ExpandHistory: {self.path} is no .npy file ({error})") from error
        asking, rows = source.features[self.other].size, source.features[self.history].size
        if near.ndim != 2 or near.shape[1] < self.count or len(near) > asking or near.max(initial=0) >= rows:
            raise UserError(
                f"ExpandHistory: {self.path} has shape {near.shape} and ids up to {near.max(initial=0)}; needed are "
                f"up to {asking} rows of {self.count} ids below {rows}"
            )
        table = np.zeros((asking, self.count), np.int32)
        table[: len(near)] = near[:, : self.count]
        return _ExpandHistory(self, table)


class _ExpandHistory:
    def __init__(self, config: ExpandHistory, table: np.ndarray):
        self.config, self.table = config, table

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        own, length = batch[self.config.history], batch[f"{self.config.history}/length"]
        done, other = batch[self.config.other], batch[f"{self.config.other}/length"]
        there = np.arange(own.shape[1]) < length[:, None]
        # A behaviour's nearest item stands last of its items: it is the one that stays where the history is cut.
        items = self.table[done][:, :, ::-1].reshape(len(done), -1)
        real = np.repeat(np.arange(done.shape[1]) < other[:, None], self.config.count, axis=1) & (items >= FIRST)
        if self.config.times is None:
            when = [np.ones(own.shape), np.zeros(items.shape)]
        else:
            mine, elsewhere = (batch[name].astype(np.float64) for name in self.config.times)
            when = [mine, np.repeat(elsewhere, self.config.count, axis=1)]
        both = np.concatenate([items, own], axis=1).astype(own.dtype)
        keep = np.concatenate([real, there], axis=1)
        time = np.where(keep, np.concatenate(when[::-1], axis=1), -np.inf)
        order = np.argsort(time, axis=1, kind="stable")  # what is not there first, the newest last
        newest = np.take_along_axis(both, order, axis=1)[:, -own.shape[1] :]
        count = np.minimum(keep.sum(axis=1), own.shape[1])
        place = np.arange(own.shape[1])
        at = np.minimum(own.shape[1] - count[:, None] + place, own.shape[1] - 1)
        moved = np.where(place < count[:, None], np.take_along_axis(newest, at, axis=1), 0)
        expanded = {self.config.history: moved, f"{self.config.history}/length": count.astype(length.dtype)}
        return {**batch, **expanded}
