"""Batch normalisation in as few passes over the activations as its equations need."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

Moments = tuple[Float[Array, " d"], Float[Array, " d"]]
"""Mean and variance of each channel."""


class BatchNorm(nnx.Module):
    """γ (x - E[x]) / √(Var[x] + ε) + β per channel (Ioffe and Szegedy, ICML 2015, algorithm 1).

    E and Var are the batch's in training, over the positions of `mask` where one is given, and running ones at
    inference. A `shift` is the bias of the layer before: the batch's mean takes it out again, so it is not even added,
    and counts in the running mean alone.
    """

    def __init__(self, width: int, *, momentum: float = 0.99, epsilon: float = 1e-5):
        self.scale, self.bias = nnx.Param(jnp.ones((width,))), nnx.Param(jnp.zeros((width,)))
        self.mean, self.var = nnx.BatchStat(jnp.zeros((width,))), nnx.BatchStat(jnp.ones((width,)))
        self.momentum, self.epsilon = momentum, epsilon

    def __call__(
        self,
        x: Float[Array, "*b d"],
        *,
        shift: Float[Array, " d"] | float = 0.0,
        mask: Bool[Array, "*b"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "*b d"]:
        scale, bias, shift = (jnp.asarray(v, jnp.float32) for v in (self.scale[...], self.bias[...], shift))
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        if rngs is None:
            out = _scaled(rows, (self.mean[...] - shift, self.var[...]), scale, bias, self.epsilon)
        else:
            weight = None if mask is None else mask.reshape(-1, 1).astype(jnp.float32)
            out, mean, var = _normal(rows, scale, bias, weight, self.epsilon)
            for running, now in ((self.mean, mean + shift), (self.var, var)):
                running[...] = jax.lax.stop_gradient(self.momentum * running[...] + (1 - self.momentum) * now)
        return out.astype(x.dtype).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normal(
    x: Float[Array, "n d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    weight: Float[Array, "n 1"] | None,
    epsilon: float,
) -> tuple[Float[Array, "n d"], Float[Array, " d"], Float[Array, " d"]]:
    """The normalised rows, and the mean and variance, through which no gradient is to flow.

    The derivative is written out, because the one by transposition reads and writes the activations twice as often.
    """
    moments = _moments(x, weight)
    return _scaled(x, moments, scale, bias, epsilon), *moments


def _forward(x, scale, bias, weight, epsilon):
    out, mean, var = _normal(x, scale, bias, weight, epsilon)
    return (out, mean, var), (x, scale, weight, mean, var)


def _backward(epsilon, kept, cotangents):
    x, scale, weight, mean, var = kept
    g, root = cotangents[0], jax.lax.rsqrt(var + epsilon)
    of_bias = g.sum(axis=0)
    of_scale = ((g * x).sum(axis=0) - mean * of_bias) * root
    # Over the rows that made the moments: g - E[g] - x̂ E[g x̂], where the others have g alone.
    normal = _scaled(x, (mean, var), of_scale, of_bias, epsilon) / _count(x, weight)
    dx = scale[None, :] * root[None, :] * (g - (normal if weight is None else weight * normal))
    return dx, of_scale, of_bias, None if weight is None else jnp.zeros_like(weight)


_normal.defvjp(_forward, _backward)


def _scaled(x: Float[Array, "n d"], moments: Moments, scale, bias, epsilon: float) -> Float[Array, "n d"]:
    mean, var = moments
    return (x - mean[None, :]) * (scale * jax.lax.rsqrt(var + epsilon))[None, :] + bias[None, :]


def _moments(x: Float[Array, "n d"], weight: Float[Array, "n 1"] | None) -> Moments:
    """Of the rows whose weight is 1; of no rows at all, zero."""
    count = _count(x, weight)
    x = x if weight is None else x * weight
    mean = x.sum(axis=0) / count
    # What rounding leaves below zero would be a square root of nothing.
    return mean, jnp.maximum(jnp.square(x).sum(axis=0) / count - jnp.square(mean), 0)


def _count(x: Float[Array, "n d"], weight: Float[Array, "n 1"] | None) -> Float[Array, ""]:
    return jnp.asarray(x.shape[0], jnp.float32) if weight is None else jnp.maximum(weight.sum(), 1)
