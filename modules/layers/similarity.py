"""What stands between two vectors and a contrastive logit: unit length, temperature and bias."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Scaled to length 1; the zero vector stays zero and keeps a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True) + 1e-12).astype(x.dtype)


class Temperature(nnx.Module):
    """A learned inverse temperature, and a learned bias where the loss is a sigmoid of each pair."""

    def __init__(self, scale: float, *, bias: float | None = None):
        self.log_scale = nnx.Param(jnp.asarray(math.log(scale)))
        self.bias = None if bias is None else nnx.Param(jnp.asarray(bias))

    def __call__(self) -> dict[str, jax.Array]:
        outputs = {"log_scale": self.log_scale.get_value()}
        return outputs if self.bias is None else {**outputs, "bias": self.bias.get_value()}
