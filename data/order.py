"""The order of reading: position in the endless stream of epochs -> row of the source.

Position p belongs to epoch p // n. The order depends on (n, blocks, seed, epoch) alone, so any position can be
found again without reading what stands before it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np


class Order:
    """`blocks` (row offsets, as a source of large files declares them) shuffles blocks, joins them to windows of
    about `window` rows and shuffles within the windows; without blocks the shuffle is global, 4 bytes a row."""

    def __init__(self, rows: int, *, shuffle: bool, seed: int, blocks: np.ndarray | None = None, window: int = 1 << 20):
        self.n, self.shuffle, self.seed = rows, shuffle, seed
        self.blocks = np.zeros(0, np.int64) if blocks is None else np.asarray(blocks, np.int64)
        self.window = window
        self._made = _Recent(4)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows at the positions [start, stop)."""
        parts = []
        while start < stop:
            epoch, at = divmod(start, self.n)
            end = min(self.n, at + stop - start)
            parts.append(self._within(epoch, at, end))
            start += end - at
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _within(self, epoch: int, at: int, end: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(at, end, dtype=np.int64)
        if not len(self.blocks):
            return self._made.get((epoch,), lambda: self._permutation(epoch))[at:end].astype(np.int64)
        order, first, starts = self._made.get((epoch,), lambda: self._windows(epoch))
        parts = []
        window = int(np.searchsorted(starts, at, side="right")) - 1
        while at < end:
            rows = self._made.get((epoch, window), lambda w=window: self._window(epoch, w, order, first))
            low, high = at - starts[window], min(end, starts[window + 1]) - starts[window]
            parts.append(rows[low:high])
            at, window = starts[window] + high, window + 1
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        rows = np.arange(self.n, dtype=np.uint32 if self.n <= 1 << 32 else np.int64)
        np.random.default_rng((self.seed, epoch)).shuffle(rows)
        return rows

    def _windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Block order; first block of each window and an end mark; first position of each window and an end mark."""
        sizes = np.diff(self.blocks)
        order = np.random.default_rng((self.seed, epoch)).permutation(np.flatnonzero(sizes > 0))
        ends = np.cumsum(sizes[order])
        group = (ends - 1) // self.window
        first = np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(order))
        starts = np.append(0, ends)[first]
        return order, first, starts

    def _window(self, epoch: int, window: int, order: np.ndarray, first: np.ndarray) -> np.ndarray:
        blocks = order[first[window] : first[window + 1]]
        rows = np.concatenate([np.arange(self.blocks[b], self.blocks[b + 1]) for b in blocks])
        np.random.default_rng((self.seed, epoch, window)).shuffle(rows)
        return rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _made=_Recent(4))


class Bucketed:
    """Batches of rows of like length: `window` batches of the order are sorted by length and dealt out anew."""

    def __init__(self, order: Order, lengths: np.ndarray, *, batch_size: int, batches: int, window: int):
        self.n, self.order, self.lengths = order.n, order, lengths
        self.batch_size, self.batches, self.window = batch_size, batches, window
        self._made = _Recent(4)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows at the positions [start, stop), which lie in one batch."""
        batch = start // self.batch_size
        return self._batch(batch)[start - batch * self.batch_size : stop - batch * self.batch_size]

    def longest(self, start: int) -> int:
        """The greatest length in the batch of position `start`, over all processes."""
        return int(self.lengths[self._batch(start // self.batch_size)].max())

    def _batch(self, batch: int) -> np.ndarray:
        number = batch // self.window
        dealt = self._made.get((number,), lambda: self._deal(number))
        return dealt[batch - number * self.window]

    def _deal(self, number: int) -> np.ndarray:
        first = number * self.window
        count = min(self.window, self.batches - first)  # a last window deals out all that is left
        rows = self.order.rows(first * self.batch_size, (first + count) * self.batch_size)
        rows = rows[np.argsort(self.lengths[rows], kind="stable")].reshape(count, self.batch_size)
        return rows[np.random.default_rng((self.order.seed, number)).permutation(count)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _made=_Recent(4))


class _Recent:
    """The last few values made, safe for reading threads."""

    def __init__(self, size: int):
        self._size, self._lock = size, threading.Lock()
        self._values: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._values:
                while len(self._values) >= self._size:
                    self._values.popitem(last=False)
                self._values[key] = make()
            self._values.move_to_end(key)
            return self._values[key]
