"""The strongest entries of each row of a matrix between items that is too large to be held: it is made in blocks."""

from collections.abc import Callable

import numpy as np

from data.errors import UserError
from data.features import FIRST

Block = Callable[[slice], np.ndarray]
"""Some rows of the matrix, dense."""
BLOCK = 512


def strongest(block: Block, *, count: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values [rows, count] of the highest positive entries of each row but its own; 0 past the end.

    `order` names all rows; of entries that tie where the list ends those stay that come first in it.
    """
    rows = len(order)
    if count >= rows:
        raise UserError(f"lists of {count} are longer than the catalogue of {rows - FIRST} items; lower `listed`")
    ids = np.zeros((rows, count), np.int32)
    weights = np.zeros((rows, count), np.float32)
    for start in range(0, rows, BLOCK):
        part = slice(start, min(start + BLOCK, rows))
        values = np.array(block(part))
        values[np.arange(len(values)), np.arange(part.start, part.stop)] = 0
        values[:, :FIRST] = 0
        values = values[:, order]
        last = np.partition(values, rows - count, axis=1)[:, rows - count, None]
        above, ties = values > last, values == last
        room = count - above.sum(axis=1, keepdims=True)
        kept = np.nonzero(above | (ties & (np.cumsum(ties, axis=1) <= room)))[1].reshape(len(values), count)
        found = np.maximum(np.take_along_axis(values, kept, axis=1), 0)
        weights[part], ids[part] = found, np.where(found > 0, order[kept], 0)
    return ids, weights
