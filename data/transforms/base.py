"""Transforms: what happens to a batch between the source and the model.

They see a whole batch of numpy arrays, never a row, and are pure functions of (batch, rng), so that a batch can be
made again from its number alone.
"""

from collections.abc import Callable
from typing import Any

import chz
import numpy as np

from data.features import Features
from data.sources import Rows, Source

Bound = Callable[..., Rows]
"""(batch, *, rng) -> batch."""


@chz.chz
class Transform:
    """`features` says what `__call__` does to the declaration; both must agree."""

    def features(self, features: Features) -> Features:
        return features

    def bind(self, source: Source) -> "Bound":
        """What is called on batches of `source`; for a transform that must first know the whole of it."""
        return self

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class RowRandom(np.random.Generator):
    """Draws for the rows [start, stop) of a global batch of `total` rows.

    A draw covers the whole global batch and returns the local rows, so a row gets the same numbers whichever
    process reads it. Hence the first dimension of every `size` is the number of local rows; without a size the
    one number drawn is common to all. Methods whose consumption depends on their arguments are not offered.
    """

    def __init__(self, seed: tuple[int, ...], *, start: int, stop: int, total: int):
        super().__init__(np.random.Philox(np.random.SeedSequence(seed)))
        self._start, self._stop, self._total = start, stop, total

    def _global(self, size: Any) -> tuple[int, ...]:
        shape = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
        if not shape or shape[0] != self._stop - self._start:
            raise ValueError(f"draw one entry per row: the batch has {self._stop - self._start} rows, size is {shape}")
        return (self._total, *shape[1:])

    def random(self, size=None, dtype=np.float64):
        if size is None:
            return super().random(dtype=dtype)
        return super().random(self._global(size), dtype=dtype)[self._start : self._stop]

    def standard_normal(self, size=None, dtype=np.float64):
        if size is None:
            return super().standard_normal(dtype=dtype)
        return super().standard_normal(self._global(size), dtype=dtype)[self._start : self._stop]

    def uniform(self, low=0.0, high=1.0, size=None):
        size = self._size(size, low, high)
        return low + (np.asarray(high) - low) * self.random(size)

    def normal(self, loc=0.0, scale=1.0, size=None):
        return loc + scale * self.standard_normal(self._size(size, loc, scale))

    def integers(self, low, high=None, size=None, dtype=np.int64, endpoint=False):
        """Bounds may be arrays with one row per row of the batch; bias is below range / 2^53."""
        low, high = (0, low) if high is None else (low, high)
        span = np.asarray(high) - low + bool(endpoint)
        if np.any(span <= 0):
            raise ValueError("low >= high")
        drawn = np.floor(self.random(self._size(size, low, high)) * span)
        return (np.minimum(drawn, span - 1) + low).astype(dtype)[()]

    @staticmethod
    def _size(size, *bounds):
        shape = np.broadcast_shapes(*(np.shape(b) for b in bounds))
        return size if size is not None else (shape or None)

    def _refuse(self, *_: Any, **__: Any):
        raise TypeError("draw with random, integers, uniform or normal: this method would depend on the process count")

    choice = permutation = permuted = shuffle = exponential = gamma = beta = poisson = binomial = _refuse
