"""Ordered outcomes: cumulative logits, and the penalty that draws their slopes together.

Faletto and Bien, "Predicting Rare Events by Shrinking Towards Proportional Odds", ICML 2023: logit P(y <= k | x)
= α_k + x·β_k for k = 1 .. K-1, with an ℓ1 penalty on β_1 and on each β_k - β_{k-1}. All equal: proportional odds.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SMALLEST_GAP = 1e-9


def ordinal_nll(eta: Float[Array, "b k"], y: Int[Array, " b"]) -> Float[Array, " b"]:
    """-log P(y), of classes 0 .. k, where σ(eta_j) = P(y <= j).

    p = σ(u) - σ(l) = σ(u) σ(-l) (1 - e^(l - u)). Where boundaries cross, the last factor is held at a tiny value and
    the first two still push them apart.
    """
    rows = jnp.arange(eta.shape[0])
    last = eta.shape[1]
    upper, lower = eta[rows, jnp.minimum(y, last - 1)], eta[rows, jnp.maximum(y - 1, 0)]
    top, bottom = y == last, y == 0
    log_upper = jnp.where(top, 0.0, jax.nn.log_sigmoid(upper))
    log_lower = jnp.where(bottom, 0.0, jax.nn.log_sigmoid(-lower))
    inner = ~top & ~bottom
    gap = jnp.where(inner, jnp.maximum(upper - lower, SMALLEST_GAP), 1.0)
    return -(log_upper + log_lower + jnp.where(inner, jnp.log(-jnp.expm1(-gap)), 0.0))


def slopes(psi: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """β from ψ_1 = β_1, ψ_k = β_k - β_{k-1}."""
    return jnp.cumsum(psi, axis=0)


def smooth_absolute(x: Float[Array, "*b"], *, width: float = 1e-4) -> Float[Array, "*b"]:
    """|x|, rounded off within `width` of 0 so that gradient descent can rest there."""
    return jnp.sqrt(jnp.square(x) + width**2) - width
