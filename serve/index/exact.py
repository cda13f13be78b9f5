"""Exact nearest neighbours: every vector is compared, block by block, so memory does not grow with the index."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from serve.index.base import BLOCK, Found, Keeps, compared, full_mask, padded

FEW = 8192
"""So few rows are compared on the host, without a program compiled for their number."""


class Exact:
    """Of equal scores the earlier vector comes first."""

    name = "exact"

    def __init__(self, vectors: np.ndarray):
        self.vectors = vectors

    def about(self) -> dict[str, Any]:
        return {}

    def nearest(self, queries: np.ndarray, *, k: int, keep: Keeps | None = None) -> Found:
        count = len(self.vectors)
        if (count if keep is None else keep.count) <= max(FEW, count // 16):
            return compared(self.vectors, queries, k=k, rows=None if keep is None else keep.rows())
        mask = np.ones(count, bool) if keep is None else full_mask(keep, count=count)
        size = 1 << max(len(queries) - 1, 0).bit_length()  # few distinct shapes, few compiles
        query = np.concatenate([queries, np.zeros((size - len(queries), queries.shape[1]), np.float32)])
        block = min(BLOCK, 1 << max(count - 1, 0).bit_length())
        most = min(k, count)
        best = np.full((size, most), -np.inf, np.float32), np.full((size, most), -1, np.int32)
        for start in range(0, count, block):
            piece, real = np.asarray(self.vectors[start : start + block]), mask[start : start + block]
            if short := block - len(piece):
                piece = np.concatenate([piece, np.zeros((short, piece.shape[1]), piece.dtype)])
                real = np.concatenate([real, np.zeros(short, bool)])
            best = _merge(best[0], best[1], query, piece, real, jnp.int32(start), k=most)
        scores, rows = (np.asarray(a)[: len(queries)] for a in best)
        return padded(np.where(scores > -np.inf, rows, -1), scores, k=k)


@partial(jax.jit, static_argnames="k")
def _merge(
    scores: Float[Array, "q k"], at, queries: Float[Array, "q d"], piece: Float[Array, "n d"], real, start, *, k: int
):
    """The k best of those so far and of the `real` vectors of one more block."""
    # Accelerators would otherwise multiply in fewer bits, and an exact index is what others are measured by.
    found = jnp.matmul(queries, piece.T, precision=jax.lax.Precision.HIGHEST)
    found = jnp.where(real[None, :], found, -jnp.inf)
    top, where = jax.lax.top_k(found, min(k, piece.shape[0]))
    scores = jnp.concatenate([scores, top], axis=1)
    at = jnp.concatenate([at, where.astype(jnp.int32) + start], axis=1)
    scores, chosen = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(at, chosen, axis=1)
