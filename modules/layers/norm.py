"""Batch normalisation in as few passes over the activations as its equations need."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float


class BatchNorm(nnx.Module):
    """γ (x - E[x]) / √(Var[x] + ε) + β per channel (Ioffe and Szegedy, ICML 2015, algorithm 1).

    E and Var are the batch's in training, over the positions of `mask` where one is given, and running ones at
    inference. Both sums are taken in one pass, so that with its gradient the layer reads the activations four times.
    """

    def __init__(self, width: int, *, momentum: float = 0.99, epsilon: float = 1e-5):
        self.scale, self.bias = nnx.Param(jnp.ones((width,))), nnx.Param(jnp.zeros((width,)))
        self.mean, self.var = nnx.BatchStat(jnp.zeros((width,))), nnx.BatchStat(jnp.ones((width,)))
        self.momentum, self.epsilon = momentum, epsilon

    def __call__(
        self, x: Float[Array, "*b d"], *, mask: Bool[Array, "*b"] | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b d"]:
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        mean, var = self.mean[...], self.var[...]
        if rngs is not None:
            mean, var = moments(rows, mask=None if mask is None else mask.reshape(-1))
            for running, now in ((self.mean, mean), (self.var, var)):
                running[...] = jax.lax.stop_gradient(self.momentum * running[...] + (1 - self.momentum) * now)
        factor = self.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + self.epsilon)
        out = (rows - mean[None, :]) * factor[None, :] + self.bias[...].astype(jnp.float32)[None, :]
        return out.astype(x.dtype).reshape(x.shape)


def moments(
    rows: Float[Array, "n d"], *, mask: Bool[Array, " n"] | None
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Mean and variance of each column over the rows of `mask`; of no rows at all, zero."""
    count: jax.Array | int = rows.shape[0]
    if mask is not None:
        rows = jnp.where(mask[:, None], rows, 0)
        count = jnp.maximum(mask.sum(), 1)
    mean = rows.sum(axis=0) / count
    # What rounding leaves below zero would be a square root of nothing.
    return mean, jnp.maximum(jnp.square(rows).sum(axis=0) / count - jnp.square(mean), 0)
