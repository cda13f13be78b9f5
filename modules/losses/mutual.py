"""What belongs together against what does not (Zhou et al., CIKM 2020): attributes of items, and pairs of scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attribute_bce(
    x: Float[Array, "b t d"],
    attributes: Float[Array, "a d"],
    *,
    held: Float[Array, "b t a"],
    where: Bool[Array, "b t"],
) -> Float[Array, ""]:
    """Binary cross-entropy of every attribute at the chosen positions: summed, and divided by the rows."""
    logits = jnp.einsum("btd,ad->bta", x, attributes, preferred_element_type=jnp.float32)
    losses = jnp.sum(jax.nn.softplus(logits) - held * logits, axis=-1)
    return jnp.sum(jnp.where(where, losses, 0.0)) / x.shape[0]


def pairwise(
    positive: Float[Array, "*b"], negative: Float[Array, "*b"], *, where: Bool[Array, "*b"], squashed: bool = False
) -> Float[Array, ""]:
    """-log σ(s⁺ - s⁻), summed and divided by the rows; `squashed`: of σ(s⁺) and σ(s⁻), as the authors do."""
    if squashed:
        positive, negative = jax.nn.sigmoid(positive), jax.nn.sigmoid(negative)
    losses = jax.nn.softplus(negative - positive)
    return jnp.sum(jnp.where(where, losses, 0.0)) / positive.shape[0]
