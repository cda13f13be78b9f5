"""The arithmetic of attention across fields: thousands of products of tiny matrices, and norms of narrow rows.

Written for what a CPU is slow at. A product with a transposed left side costs several times one without, so the
backward pass transposes the small matrix of weights first; sums over the last axis are products with ones.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-6


class LayerNorm(nnx.Module):
    """Layer normalisation (Ba et al., 2016) of many narrow rows."""

    def __init__(self, width: int):
        self.scale, self.bias = nnx.Param(jnp.ones((width,))), nnx.Param(jnp.zeros((width,)))

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return layer_norm(x, self.scale[...], self.bias[...])


@jax.custom_vjp
def meet(query: Float[Array, "b h m e"], key: Float[Array, "b h k e"]) -> Float[Array, "b h m k"]:
    """<q_m, k_k> of each head."""
    return jnp.einsum("bhme,bhke->bhmk", query, key)


@jax.custom_vjp
def mix(weights: Float[Array, "b h m k"], value: Float[Array, "b h k e"]) -> Float[Array, "b h m e"]:
    """Σ_k w_mk v_k of each head."""
    return jnp.einsum("bhmk,bhke->bhme", weights, value)


def _turned(weights: Float[Array, "b h m k"]) -> Float[Array, "b h k m"]:
    # The barrier keeps the compiler from moving the transpose back into the product.
    return jax.lax.optimization_barrier(weights.swapaxes(2, 3))


meet.defvjp(
    lambda query, key: (meet(query, key), (query, key)),
    lambda saved, g: (mix(g, saved[1]), mix(_turned(g), saved[0])),
)
mix.defvjp(
    lambda weights, value: (mix(weights, value), (weights, value)),
    lambda saved, g: (meet(g, saved[1]), mix(_turned(saved[0]), g)),
)


@jax.custom_vjp
def layer_norm(x: Float[Array, "n d"], scale: Float[Array, " d"], bias: Float[Array, " d"]) -> Float[Array, "n d"]:
    """(x - E[x]) / √(Var[x] + ε) of each row, times scale, plus bias."""
    return _norm_forward(x, scale, bias)[0]


def _row_mean(x: Float[Array, "n d"]) -> Float[Array, "n 1"]:
    return x @ jnp.full((x.shape[1], 1), 1 / x.shape[1], x.dtype)


def _norm_forward(x, scale, bias):
    mean = _row_mean(x)
    centred = x - mean
    rate = jax.lax.rsqrt(_row_mean(jnp.square(centred)) + jnp.asarray(EPSILON, x.dtype))
    normal = centred * rate
    return normal * scale[None] + bias[None], (normal, rate, scale)


def _norm_backward(saved, g):
    normal, rate, scale = saved
    ones = jnp.ones((g.shape[0],), g.dtype)
    inner = g * scale[None]
    x = rate * (inner - _row_mean(inner) - normal * _row_mean(inner * normal))
    return x, ones @ (g * normal), ones @ g


layer_norm.defvjp(_norm_forward, _norm_backward)
