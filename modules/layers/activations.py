"""Activations by name, and those that hold state: PReLU and Dice."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

Name = Literal["relu", "gelu", "sigmoid", "tanh", "prelu", "dice"]
STATELESS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}


class Activation(nnx.Module):
    """The activation of one layer of `width` channels."""

    def __init__(self, name: Name, *, width: int):
        self.name = name
        self.state = {"prelu": PReLU, "dice": Dice}[name](width) if name not in STATELESS else None

    def __call__(
        self, x: Float[Array, "*b d"], *, mask: Bool[Array, "*b"] | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b d"]:
        if self.state is None:
            return STATELESS[self.name](x)
        return self.state(x, mask=mask, rngs=rngs)


class PReLU(nnx.Module):
    """max(s, 0) + α min(s, 0), one α per channel."""

    def __init__(self, width: int):
        self.alpha = nnx.Param(jnp.full((width,), 0.25))

    def __call__(
        self, x: Float[Array, "*b d"], *, mask: Bool[Array, "*b"] | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b d"]:
        return jnp.where(x > 0, x, _per_channel(self.alpha[...], like=x) * x)


class Dice(nnx.Module):
    """Data-adaptive PReLU (DIN, KDD 2018, section 5.2): p(s) s + (1 - p(s)) α s, p(s) = σ((s - E[s]) / √(Var[s] + ε)).

    E and Var are those of the batch in training, over valid positions where a mask is given, and running ones at
    inference. α is learned per channel from 0.
    """

    def __init__(self, width: int, *, momentum: float = 0.99, epsilon: float = 1e-8):
        self.alpha = nnx.Param(jnp.zeros((width,)))
        self.mean = nnx.BatchStat(jnp.zeros((width,)))
        self.var = nnx.BatchStat(jnp.ones((width,)))
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(
        self, x: Float[Array, "*b d"], *, mask: Bool[Array, "*b"] | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b d"]:
        mean, var = self.mean[...], self.var[...]
        if rngs is not None:
            mean, var = _moments(x, mask=mask)
            keep = self.momentum
            self.mean[...] = jax.lax.stop_gradient(keep * self.mean[...] + (1 - keep) * mean)
            self.var[...] = jax.lax.stop_gradient(keep * self.var[...] + (1 - keep) * var)
        normal = (x - _per_channel(mean, like=x)) * _per_channel(jax.lax.rsqrt(var + self.epsilon), like=x)
        p = jax.nn.sigmoid(normal).astype(x.dtype)
        return p * x + _per_channel(self.alpha[...], like=x) * (1 - p) * x


def _moments(x: Float[Array, "*b d"], *, mask: Bool[Array, "*b"] | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel over the rows of `mask`; of no rows at all, zero."""
    rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
    weight = jnp.ones(rows.shape[0]) if mask is None else mask.astype(jnp.float32).reshape(-1)
    weight = weight / jnp.maximum(weight.sum(), 1.0)
    # Products with the weights, because sums over leading axes are slow on a CPU.
    mean = weight @ rows
    return mean, weight @ jnp.square(rows - mean[None, :])


def _per_channel(v: Float[Array, " d"], *, like: Float[Array, "*b d"]) -> Float[Array, "... d"]:
    return jnp.expand_dims(v, tuple(range(like.ndim - 1)))
