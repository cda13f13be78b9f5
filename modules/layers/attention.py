"""Multi-head attention and the masks that shape it."""

import math

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from modules.layers.linear import Linear

HIDDEN = -1e9
"""Logit of a key that a query may not see; finite, so that a row of nothing but such keys is not NaN."""


BLOCK = 100
"""Queries that read their keys together where attention is causal; a history of up to so many is one block."""
MOST_BLOCKS = 4
"""Four leave out three eighths of all pairs, and a program grows with each."""


def visible(valid: Bool[Array, "b t"], *, causal: bool = False) -> Bool[Array, "b t t"]:
    """Which keys each query sees: those that hold something and, if causal, are not newer."""
    length = valid.shape[1]
    seen = jnp.broadcast_to(valid[:, None, :], (valid.shape[0], length, length))
    return seen & jnp.tril(jnp.ones((length, length), bool))[None] if causal else seen


def attend(
    query: Float[Array, "b q h e"],
    key: Float[Array, "b k h e"],
    value: Float[Array, "b k h e"],
    *,
    mask: Bool[Array, "b q k"] | None = None,
    causal: bool = False,
) -> Float[Array, "b q h e"]:
    """Softmax of scaled dot products, summed over values. A query that may see no key gets zeros.

    If causal, a query sees no newer key, whatever the mask says, and goes without the products with most of them:
    the queries are cut into blocks, each of which reads the keys up to its own end.
    """
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    if not causal:
        return jnp.swapaxes(softmax_sum(query, key, value, mask=mask), 1, 2)
    length = query.shape[2]
    if key.shape[2] != length:
        raise ValueError(f"causal attention of {length} queries over {key.shape[2]} keys: give as many of both")
    size = math.ceil(length / min(MOST_BLOCKS, math.ceil(length / BLOCK)))
    mixed = []
    for start in range(0, length, size):
        end = min(start + size, length)
        seen = (jnp.arange(end)[None] <= jnp.arange(start, end)[:, None])[None]
        if mask is not None:
            seen = seen & mask[:, start:end, :end]
        mixed.append(softmax_sum(query[:, :, start:end], key[:, :, :end], value[:, :, :end], mask=seen))
    return jnp.swapaxes(jnp.concatenate(mixed, axis=2), 1, 2)


def softmax_sum(
    query: Float[Array, "b h q e"],
    key: Float[Array, "b h k e"],
    value: Float[Array, "b h k e"],
    *,
    mask: Bool[Array, "#b q k"] | None,
) -> Float[Array, "b h q e"]:
    """Divides after the sum over values, where a row has e numbers and not k; in float32."""
    logits = jnp.einsum("bhqe,bhke->bhqk", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, HIDDEN)
    # Above HIDDEN, so that the exponentials of a row of nothing but hidden keys are zeros.
    top = lax.stop_gradient(jnp.maximum(logits.max(axis=-1, keepdims=True), HIDDEN / 2))
    weights = jnp.exp(logits - top)
    total = jnp.maximum(weights.sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    summed = jnp.einsum("bhqk,bhke->bhqe", weights.astype(value.dtype), value)
    return summed / total.astype(value.dtype)


class MultiHeadAttention(nnx.Module):
    """Queries from `x`, keys and values from `memory` (default: `x` itself)."""

    def __init__(self, dim: int, *, heads: int, rngs: nnx.Rngs):
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.heads = heads
        self.query = Linear(dim, dim, rngs=rngs)
        self.key = Linear(dim, dim, rngs=rngs)
        self.value = Linear(dim, dim, rngs=rngs)
        self.out = Linear(dim, dim, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b q d"],
        *,
        memory: Float[Array, "b k d"] | None = None,
        mask: Bool[Array, "b q k"] | None = None,
        causal: bool = False,
    ) -> Float[Array, "b q d"]:
        memory = x if memory is None else memory
        query, key, value = self._split(self.query(x)), self._split(self.key(memory)), self._split(self.value(memory))
        mixed = attend(query, key, value, mask=mask, causal=causal)
        return self.out(mixed.reshape(x.shape))

    def _split(self, x: Float[Array, "b t d"]) -> Float[Array, "b t h e"]:
        return x.reshape(*x.shape[:2], self.heads, -1)
