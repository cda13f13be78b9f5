"""Item vectors from a file of ids and vectors, as rows of one matrix; items without a vector get zeros."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data.errors import UserError


def read_vectors(path: str, *, rows: int) -> np.ndarray:
    """[rows, dim] float32, row = id in the batch."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file of item vectors; run the stage that embeds the items first")
    if path.endswith(".npz"):
        with np.load(path) as file:
            if missing := {"id", "vector"} - set(file):
                raise UserError(f"{path}: no array {sorted(missing)}; item vectors are arrays id [n] and vector [n, d]")
            ids, vectors = file["id"], file["vector"]
    else:
        table = pq.read_table(path, columns=["id", "vector"])
        ids = table["id"].to_numpy()
        vectors = np.stack(table["vector"].to_numpy(zero_copy_only=False))
    if len(ids) and (ids.min() < 0 or ids.max() >= rows):
        raise UserError(
            f"{path}: ids {ids.min()} to {ids.max()}, but this mall has {rows} rows; embed this mall's items"
        )
    out = np.zeros((rows, vectors.shape[1]), np.float32)
    out[ids] = vectors
    return out
