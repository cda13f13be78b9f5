"""Item vectors by their ids, from a folder or a file, as rows of one matrix; a few items without a vector get zeros."""

from pathlib import Path

import numpy as np

from data.errors import UserError
from data.features import FIRST
from data.vectors import FORM, read

MISSING = 0.1
"""Share of the items that may lack a vector; more, and the file is of other items."""
NAMED = 5


def read_vectors(path: str, *, rows: int, missing: float = MISSING) -> np.ndarray:
    """[rows, dim] float32, row = id in the batch; rows 0 and 1 are no item's."""
    if not Path(path).exists():
        raise UserError(f"{path}: no such file of item vectors; run the stage that embeds the items first")
    ids, vectors, _ = read(Path(path))
    if not vectors.size:
        raise UserError(f"{path}: ids of shape {ids.shape} and vectors of shape {vectors.shape}; {FORM}")
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"{path}: ids are {ids.dtype}; item vectors are named by the integer ids of the batch")
    if ids.min() < 0 or ids.max() >= rows:
        raise UserError(
            f"{path}: ids {ids.min()} to {ids.max()}, but this mall has {rows} rows; embed this mall's items"
        )
    unique, count = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise UserError(f"{path}: {_some(unique[count > 1])} more than once; keep one vector of each item")
    if not np.isfinite(vectors).all():
        bad = ids[~np.isfinite(vectors).all(axis=1)]
        raise UserError(f"{path}: {_some(bad)} with a vector that is not finite; embed the items anew")
    absent = np.setdiff1d(np.arange(FIRST, rows), unique)
    if len(absent) > missing * max(rows - FIRST, 1):
        raise UserError(f"{path}: {_some(absent)} of {rows - FIRST} without a vector; embed this mall's items")
    out = np.zeros((rows, vectors.shape[1]), np.float32)
    out[ids] = vectors
    return out


def _some(ids: np.ndarray) -> str:
    """How many ids, and the first of them."""
    return f"{len(ids):,} ids ({', '.join(map(str, ids[:NAMED]))}{', ...' if len(ids) > NAMED else ''})"
