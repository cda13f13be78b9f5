"""Multi-head attention and the masks that shape it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

HIDDEN = -1e9
"""Logit of a key that a query may not see; finite, so that a row of nothing but such keys is not NaN."""


def visible(valid: Bool[Array, "b t"], *, causal: bool) -> Bool[Array, "b t t"]:
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
) -> Float[Array, "b q h e"]:
    """Scaled dot products, softmax in float32. A query that may see no key gets zeros."""
    logits = jnp.einsum("bqhe,bkhe->bhqk", query, key).astype(jnp.float32) / query.shape[-1] ** 0.5
    if mask is None:
        weights = jax.nn.softmax(logits)
    else:
        seen = mask[:, None]
        weights = jnp.where(seen, jax.nn.softmax(jnp.where(seen, logits, HIDDEN)), 0.0)
    return jnp.einsum("bhqk,bkhe->bqhe", weights.astype(value.dtype), value)


class MultiHeadAttention(nnx.Module):
    """Queries from `x`, keys and values from `memory` (default: `x` itself)."""

    def __init__(self, dim: int, *, heads: int, rngs: nnx.Rngs):
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.heads = heads
        self.query = nnx.Linear(dim, dim, rngs=rngs)
        self.key = nnx.Linear(dim, dim, rngs=rngs)
        self.value = nnx.Linear(dim, dim, rngs=rngs)
        self.out = nnx.Linear(dim, dim, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b q d"],
        *,
        memory: Float[Array, "b k d"] | None = None,
        mask: Bool[Array, "b q k"] | None = None,
    ) -> Float[Array, "b q d"]:
        memory = x if memory is None else memory
        mixed = attend(
            self._split(self.query(x)), self._split(self.key(memory)), self._split(self.value(memory)), mask=mask
        )
        return self.out(mixed.reshape(x.shape))

    def _split(self, x: Float[Array, "b t d"]) -> Float[Array, "b t h e"]:
        return x.reshape(*x.shape[:2], self.heads, -1)
