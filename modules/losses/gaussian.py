"""Distances between Gaussians of independent coordinates."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian_kl(
    mean: Float[Array, "b d"],
    deviation: Float[Array, "b d"],
    *,
    of_mean: Float[Array, "b d"],
    of_deviation: Float[Array, "b d"],
) -> Float[Array, "b"]:
    """KL(N(mean, deviation²) || N(of_mean, of_deviation²)), summed over the coordinates."""
    spread = jnp.square(deviation) + jnp.square(mean - of_mean)
    return jnp.sum(jnp.log(of_deviation / deviation) + spread / (2 * jnp.square(of_deviation)) - 0.5, axis=1)
