"""Dot-product attention of one target over a history.

Every candidate asks its own question; the history may belong to all of them (a request), and then it is read once.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Normalise = Literal["softmax", "relu"]


def attend(
    query: Float[Array, "b d"],
    *,
    keys: Float[Array, "u t d"],
    values: Float[Array, "u t e"],
    mask: Bool[Array, "u t"],
    normalise: Normalise = "softmax",
    scale: float | None = None,
) -> Float[Array, "b e"]:
    """Σ_i w_i values_i with w as `attention_weights` gives them; u is b, or 1. A row with nothing valid gives zero."""
    return weighted_sum(attention_weights(query, keys=keys, mask=mask, normalise=normalise, scale=scale), values=values)


def attention_weights(
    query: Float[Array, "b d"],
    *,
    keys: Float[Array, "u t d"],
    mask: Bool[Array, "u t"],
    normalise: Normalise = "softmax",
    scale: float | None = None,
) -> Float[Array, "b t"]:
    """softmax_i(s_i), or ReLU(s_i) which does not sum to one, of s_i = scale ⟨query, key_i⟩; scale is 1/√d if None.

    Positions outside of the mask weigh nothing. In float32 whatever the precision of the inputs.
    """
    return normalised(attention_scores(query, keys=keys, scale=scale), mask=mask, how=normalise)


def normalised(
    scores: Float[Array, "b t"], *, mask: Bool[Array, "u t"], how: Normalise = "softmax"
) -> Float[Array, "b t"]:
    if how == "relu":
        return jnp.where(mask, jax.nn.relu(scores), 0)
    # A finite floor: a row that is all padding must not become NaN.
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
    return jnp.where(mask, weights, 0)


def attention_scores(
    query: Float[Array, "b d"], *, keys: Float[Array, "u t d"], scale: float | None = None
) -> Float[Array, "b t"]:
    """scale ⟨query, key_i⟩, at masked positions too."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    shared, letters = (keys[0], "bd,td->bt") if keys.shape[0] == 1 else (keys, "bd,btd->bt")
    return scale * jnp.einsum(letters, query, shared, preferred_element_type=jnp.float32)


def weighted_sum(weights: Float[Array, "b t"], *, values: Float[Array, "u t e"]) -> Float[Array, "b e"]:
    weights = weights.astype(values.dtype)
    if values.shape[0] == 1:
        return weights @ values[0]
    return jnp.einsum("bt,bte->be", weights, values)
