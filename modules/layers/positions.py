"""Positions of a right-padded sequence: a vector for each, and one vector from all."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


class Positions(nnx.Module):
    """A learned vector per position, the oldest first."""

    def __init__(self, length: int, *, dim: int, rngs: nnx.Rngs):
        self.vectors = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (length, dim)))

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x + self.vectors[: x.shape[1]][None]


def last_valid(x: Float[Array, "b t d"], *, length: Int[Array, "b"]) -> Float[Array, "b d"]:
    """The row at the newest position; at position 0 where the sequence is empty."""
    index = jnp.maximum(length - 1, 0)[:, None, None]
    return jnp.take_along_axis(x, index, axis=1)[:, 0]


def mean_valid(x: Float[Array, "b t d"], *, where: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean over the positions that hold something; zeros where none does."""
    keep = where.astype(x.dtype)
    return jnp.einsum("btd,bt->bd", x, keep) / jnp.maximum(keep.sum(axis=1), 1)[:, None]
