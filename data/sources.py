"""Sources: random access to encoded rows, one at a time or a block at once."""

from typing import Protocol, runtime_checkable

import chz
import numpy as np

from data.features import Features

Rows = dict[str, np.ndarray]


@runtime_checkable
class Source(Protocol):
    """Encoded rows with declared features. `take` is the fast path: no Python per row."""

    features: Features

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Rows: ...
    def take(self, indices: np.ndarray) -> Rows: ...


@chz.chz
class SourceConfig:
    """Describes a source; `make` opens it."""

    def make(self) -> Source:
        raise NotImplementedError(f"{type(self).__name__} does not define make")


class InMemory:
    """Columns held as arrays, already encoded as `features` declares."""

    def __init__(self, columns: Rows, *, features: Features):
        self.features = features
        self.columns: Rows = {}
        for name, (shape, dtype) in features.arrays().items():
            if name not in columns:
                raise KeyError(f"column {name!r} is declared but missing; given: {', '.join(sorted(columns))}")
            column = np.asarray(columns[name])
            if column.shape[1:] != shape:
                raise ValueError(f"column {name!r} holds rows of shape {column.shape[1:]}, declared {shape}")
            self.columns[name] = np.ascontiguousarray(column, dtype=dtype)
        lengths = {len(c) for c in self.columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns differ in length: { {n: len(c) for n, c in self.columns.items()} }")
        self._len = lengths.pop() if lengths else 0

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, index: int) -> Rows:
        return {name: column[index] for name, column in self.columns.items()}

    def take(self, indices: np.ndarray) -> Rows:
        return {name: column[indices] for name, column in self.columns.items()}
