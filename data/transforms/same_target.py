"""Beside each history another that the same item follows, of whichever user."""

import chz
import numpy as np

from data.features import Features
from data.sources import Rows, Source
from data.splits import column
from data.transforms.base import Bound, Transform
from data.transforms.history import sequence_of_ids


@chz.chz
class SameTarget(Transform):
    """Adds `other`, the history of a row with the same `target`, drawn anew; where no other row has it, the row's own.

    The rows are those of the source, such as `data.prefixes.Prefixes`, as it gives them.
    """

    history: str = chz.field(default="history", doc="sequence of item ids")
    target: str = chz.field(default="target", doc="label with the item after the history")
    other: str = chz.field(default="other_history", doc="name of the second history")

    def features(self, features: Features) -> Features:
        features[self.target]
        return features.plus(chz.replace(sequence_of_ids(features, self.history), name=self.other))

    def bind(self, source: Source) -> Bound:
        return _SameTarget(self, source)


class _SameTarget:
    def __init__(self, config: SameTarget, source: Source):
        self.config, self.source = config, source
        target = column(source, config.target)
        self.order = np.argsort(target, kind="stable")
        self.start = np.searchsorted(target[self.order], np.arange(target.max(initial=0) + 2))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        name, target = self.config.history, batch[self.config.target]
        start, count = self.start[target], self.start[target + 1] - self.start[target]
        drawn = np.minimum((rng.random(len(target)) * count).astype(np.int64), count - 1)
        found = self._histories(start + drawn)
        # A row that drew itself, or its like, takes the one after it.
        again = (found[name] == batch[name]).all(axis=1)
        if again.any():
            after = self._histories(start + np.where(again, (drawn + 1) % count, drawn))
            found = {k: np.where(again.reshape(-1, *(1,) * (v.ndim - 1)), after[k], v) for k, v in found.items()}
        return {
            **batch,
            self.config.other: found[name],
            f"{self.config.other}/length": found[f"{name}/length"],
        }

    def _histories(self, places: np.ndarray) -> Rows:
        rows = self.source.take(self.order[places])
        return {name: rows[name] for name in (self.config.history, f"{self.config.history}/length")}
