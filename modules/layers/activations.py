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
        return self.at(x, mean=mean, var=var)

    def at(self, x: Float[Array, "*b d"], *, mean: Float[Array, " d"], var: Float[Array, " d"]) -> Float[Array, "*b d"]:
        """With these moments."""
        scale = jax.lax.rsqrt(var + self.epsilon)
        return _dice(x, *(_per_channel(v, like=x) for v in (mean, scale, self.alpha[...])))


@jax.custom_vjp
def _dice(x: Float[Array, "*b d"], mean: jax.Array, scale: jax.Array, alpha: jax.Array) -> Float[Array, "*b d"]:
    p = jax.nn.sigmoid((x - mean) * scale).astype(x.dtype)
    return x * (alpha + (1 - alpha) * p)


def _dice_forward(x, mean, scale, alpha):
    return _dice(x, mean, scale, alpha), (x, mean, scale, alpha)


def _dice_backward(saved, slope):
    """From x alone: computing p again is cheaper than keeping it, and x ⊙ slope serves every sum."""
    x, mean, scale, alpha = saved
    p = jax.nn.sigmoid((x - mean) * scale).astype(x.dtype)
    kept = slope * x
    passed = kept * p
    of_p = passed * (1 - p) * (1 - alpha)  # times the slope of the sigmoid
    sums = [s.astype(jnp.float32) for s in (of_p, of_p * (x - mean), kept - passed)]
    of_mean, of_scale, of_alpha = (s.sum(range(s.ndim - 1), keepdims=True) for s in sums)
    d_x = slope * (alpha + (1 - alpha) * p) + (of_p * scale).astype(x.dtype)
    return d_x, -of_mean * scale, of_scale, of_alpha.astype(alpha.dtype)


_dice.defvjp(_dice_forward, _dice_backward)


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
