"""Exact nearest neighbours: every vector is compared, block by block, so memory does not grow with the index."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from data.errors import UserError
from data.manifest import read_json, verify, write_json, write_manifest
from serve.files import settle, staged

Metric = Literal["dot", "cosine"]

KIND = "an index"
BLOCK = 1 << 16


class ExactIndex:
    """Vectors [n, d] with an id each; of equal scores the earlier vector comes first."""

    def __init__(self, vectors: np.ndarray, *, ids: np.ndarray, metric: Metric = "dot", model: str = ""):
        self.vectors, self.ids, self.metric, self.model = vectors, ids, metric, model

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best: ids [q, k] and scores [q, k], best first."""
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise UserError(f"queries have shape {queries.shape}, the index holds vectors of {self.vectors.shape[1]}")
        if not 0 < k <= len(self):
            raise UserError(f"cannot find the {k} nearest of {len(self)} vectors; choose k from 1 to {len(self)}")
        if self.metric == "cosine":
            queries = _unit(queries, what="query")
        size = 1 << max(len(queries) - 1, 0).bit_length()  # few distinct shapes, few compiles
        padded = np.concatenate([queries, np.zeros((size - len(queries), queries.shape[1]), np.float32)])
        block = min(BLOCK, 1 << (len(self) - 1).bit_length())
        best = np.full((size, k), -np.inf, np.float32), np.zeros((size, k), np.int32)
        for start in range(0, len(self), block):
            piece = np.asarray(self.vectors[start : start + block])
            held = len(piece)
            if held < block:
                piece = np.concatenate([piece, np.zeros((block - held, piece.shape[1]), piece.dtype)])
            best = _merge(best[0], best[1], padded, piece, jnp.int32(start), jnp.int32(held), k=k)
        scores, at = (np.asarray(a)[: len(queries)] for a in best)
        return self.ids[at], scores

    def save(self, path: Path) -> None:
        """Replaces the folder `path` in one step."""
        with staged(path.parent) as work:
            np.save(work / "vectors.npy", self.vectors)
            np.save(work / "ids.npy", self.ids)
            about = {"metric": self.metric, "model": self.model, "rows": len(self), "dim": self.vectors.shape[1]}
            write_json(work / "index.json", about)
            write_manifest(work, version=self.model)
            settle(work, path)


def build(
    vectors: np.ndarray, *, ids: Sequence[int] | Sequence[str] | np.ndarray, metric: Metric = "dot", model: str = ""
):
    """An index of `vectors` made by model version `model`."""
    vectors, keys = np.ascontiguousarray(vectors, np.float32), np.asarray(ids)
    if vectors.ndim != 2 or not len(vectors) or keys.shape != (len(vectors),):
        raise UserError(f"an index needs vectors [n, d] and an id each, got shapes {vectors.shape} and {keys.shape}")
    if keys.dtype.kind not in "iuU":
        raise UserError(f"ids of an index are integers or strings, not {keys.dtype}")
    values, counts = np.unique(keys, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"id {values[counts.argmax()].item()!r} stands twice among the vectors of the index")
    faulty = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(faulty):
        raise UserError(f"the vector of id {keys[faulty[0]]} is not finite, and {len(faulty) - 1} more")
    if metric == "cosine":
        vectors = _unit(vectors, what="vector")
    return ExactIndex(vectors, ids=keys, metric=metric, model=model)


def load(path: Path, *, model: str | None = None) -> ExactIndex:
    """Opens a saved index; refuses one of another model version than `model`, whose scores would mean nothing."""
    verify(path, kind=KIND)
    about = read_json(path / "index.json")
    if model is not None and model != about["model"]:
        raise UserError(f"{path} holds vectors of model {about['model']!r}, not of {model!r}; build the index again")
    vectors = np.load(path / "vectors.npy", mmap_mode="r")
    return ExactIndex(vectors, ids=np.load(path / "ids.npy"), metric=about["metric"], model=about["model"])


@partial(jax.jit, static_argnames="k")
def _merge(
    scores: Float[Array, "q k"], at, queries: Float[Array, "q d"], piece: Float[Array, "n d"], start, held, *, k: int
):
    """The k best of those so far and of one more block, whose first `held` vectors are real."""
    # Accelerators would otherwise multiply in fewer bits, and an exact index is what others are measured by.
    found = jnp.matmul(queries, piece.T, precision=jax.lax.Precision.HIGHEST)
    position = jnp.arange(piece.shape[0], dtype=jnp.int32)
    found = jnp.where(position[None, :] < held, found, -jnp.inf)
    top, where = jax.lax.top_k(found, min(k, piece.shape[0]))
    scores = jnp.concatenate([scores, top], axis=1)
    at = jnp.concatenate([at, where.astype(jnp.int32) + start], axis=1)
    scores, chosen = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(at, chosen, axis=1)


def _unit(vectors: np.ndarray, *, what: str) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = np.flatnonzero(norms[:, 0] == 0)
    if len(zero):
        raise UserError(f"{what} {zero[0]} is all zeros and has no direction; use metric dot or leave it out")
    return vectors / norms
