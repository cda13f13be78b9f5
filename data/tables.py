"""Tables of raw columns: what feature stores and files of requests are made of, as sources are of encoded rows."""

from collections.abc import Sequence

import chz
import numpy as np
import pyarrow as pa


@chz.chz
class TableConfig:
    """Describes a table; `make` reads or makes it."""

    def make(self) -> pa.Table:
        raise NotImplementedError(f"{type(self).__name__} does not define make")


def list_column(values: np.ndarray, *, lengths: Sequence[int] | np.ndarray) -> pa.ListArray:
    """The first `lengths` values of each row."""
    counts = np.asarray(lengths, np.int64)
    held = np.arange(values.shape[1]) < counts[:, None]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[held]))
