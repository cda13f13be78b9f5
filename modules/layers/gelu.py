"""The GELU, x Φ(x) (Hendrycks and Gimpel, 2016), in the three forms that published weights were trained with."""

from typing import Literal

import jax
from jaxtyping import Array, Float

Gelu = Literal["exact", "tanh", "quick"]


def gelu(x: Float[Array, "*b"], *, kind: Gelu) -> Float[Array, "*b"]:
    """Φ itself, by tanh, or by a sigmoid of 1.702 x."""
    if kind == "quick":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=kind == "tanh")
