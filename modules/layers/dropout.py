"""Dropout whose mask costs a few integer operations per element."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt32


class Dropout(nnx.Module):
    """Zeroes elements with probability `rate` in training and scales the others up to keep the mean.

    A general random generator takes longer on a CPU than the matrix product before it. A mask only has to be fair and
    without pattern, so each element's number is mixed with a fresh key instead; that fuses into what surrounds it.
    """

    def __init__(self, rate: float):
        if not 0 <= rate < 1:
            raise ValueError(f"dropout is {rate}; give a share from 0 to below 1")
        self.rate = rate

    def __call__(self, x: Float[Array, "*b d"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "*b d"]:
        if rngs is None or not self.rate:
            return x
        keep = 1 - self.rate
        kept = mixed(jax.random.bits(rngs.dropout(), (2,)), shape=x.shape) < jnp.uint32(round(keep * (2**32 - 1)))
        return jnp.where(kept, x / jnp.asarray(keep, x.dtype), jnp.zeros((), x.dtype))


def mixed(words: UInt32[Array, "2"], *, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """A number per element: its index and a key, mixed so that each bit of either turns half of the bits there."""
    x = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape) ^ words[0]
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor) + words[1]
    return x ^ (x >> 16)
