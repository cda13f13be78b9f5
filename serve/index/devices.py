"""Exact search with the vectors kept on devices: each has a share of the rows and finds its k best, which are merged.

On TPUs and GPUs each share is searched by `lax.approx_max_k` where a recall below 1 will do; on CPUs that is exact.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from data.errors import UserError
from serve.index.base import Found, Keeps, full_mask, padded

ROWS = "rows"
SCORES = 1 << 28
"""Scores that a device holds at once; more queries go in turns."""


class OnDevices:
    """`vectors` in equal shares over all devices of `mesh`; `recall` is what each share's search must reach."""

    name = "exact"

    def __init__(self, vectors: np.ndarray, *, mesh: Mesh | None = None, recall: float = 1.0):
        if not 0 < recall <= 1:
            raise UserError(f"a recall lies in (0, 1], not at {recall}")
        self.vectors, self.recall = vectors, recall
        devices = np.array(jax.devices()) if mesh is None else mesh.devices.reshape(-1)
        self.mesh = Mesh(devices, (ROWS,), axis_types=(AxisType.Auto,))
        self._rows = NamedSharding(self.mesh, PartitionSpec(ROWS))
        self._all = NamedSharding(self.mesh, PartitionSpec())
        shares = self.mesh.size
        self._share = -(-max(len(vectors), 1) // shares)
        self._room = self._share * shares
        self._placed = jax.device_put(self._padded(np.asarray(vectors, np.float32)), self._rows)
        self._real = jax.device_put(self._padded(np.ones(len(vectors), bool)), self._rows)

    def about(self) -> dict[str, Any]:
        return {"devices": self.mesh.size, "recall_asked": self.recall}

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows, np.zeros((self._room - len(rows), *rows.shape[1:]), rows.dtype)])

    def nearest(self, queries: np.ndarray, *, k: int, keep: Keeps | None = None) -> Found:
        count = len(self.vectors)
        real = self._real
        if keep is not None:
            real = jax.device_put(self._padded(full_mask(keep, count=count)), self._rows)
        most = min(k, max(count, 1))
        at_once = max(SCORES // self._share, 1)
        at_once = 1 << (at_once.bit_length() - 1)
        parts = [
            self._search(queries[start : start + at_once], real=real, k=most)
            for start in range(0, max(len(queries), 1), at_once)
        ]
        rows, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        return padded(rows, scores, k=k)

    def _search(self, queries: np.ndarray, *, real: Array, k: int) -> Found:
        size = 1 << max(len(queries) - 1, 0).bit_length()
        query = np.concatenate([queries, np.zeros((size - len(queries), queries.shape[1]), np.float32)])
        scores, rows = _search(
            jax.device_put(query, self._all), self._placed, real, mesh=self.mesh, k=k, recall=self.recall
        )
        scores, rows = (np.asarray(a)[: len(queries)] for a in (scores, rows))
        return np.where(scores > -np.inf, rows, -1), scores


@partial(jax.jit, static_argnames=("mesh", "k", "recall"))
def _search(
    queries: Float[Array, "q d"],
    vectors: Float[Array, "n d"],
    real: Bool[Array, " n"],
    *,
    mesh: Mesh,
    k: int,
    recall: float,
):
    share = vectors.shape[0] // mesh.size

    def local(queries, piece, real):
        found = jnp.matmul(queries, piece.T, precision=jax.lax.Precision.HIGHEST)
        found = jnp.where(real[None, :], found, -jnp.inf)
        few = min(k, share)
        if recall < 1:
            top, at = jax.lax.approx_max_k(found, few, recall_target=recall)
        else:
            top, at = jax.lax.top_k(found, few)
        return top, at.astype(jnp.int32) + jax.lax.axis_index(ROWS).astype(jnp.int32) * share

    whole, rows, columns = PartitionSpec(), PartitionSpec(ROWS), PartitionSpec(None, ROWS)
    top, at = jax.shard_map(local, mesh=mesh, in_specs=(whole, rows, rows), out_specs=(columns, columns))(
        queries, vectors, real
    )
    # The shares' bests stand in the order of the shares, so that of equal scores the earlier row comes first.
    scores, chosen = jax.lax.top_k(top, k)
    return scores, jnp.take_along_axis(at, chosen, axis=1)
