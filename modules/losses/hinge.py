"""Losses on cosines of a batch's pairs with a margin; row i of one side belongs to row i of the other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def batch_hinge(
    query: Float[Array, "n d"],
    item: Float[Array, "n d"],
    *,
    margin: float,
    known: Bool[Array, "n"] | None = None,
    negatives: Bool[Array, "n n"] | None = None,
) -> Float[Array, ""]:
    """max(0, s(q_r, i_c) - s(q_r, i_r) + margin [r ≠ c]), mean over the batch's matrix, of vectors of unit length.

    Rows that are not `known` are in no pair; pairs that are no `negatives` of each other do not count. 0 of no pair.
    """
    cosine = jnp.einsum("qd,id->qi", query, item, preferred_element_type=jnp.float32)
    diagonal = jnp.eye(cosine.shape[0], dtype=bool)
    counts = jnp.ones_like(diagonal) if negatives is None else negatives | diagonal
    if known is not None:
        counts &= known[:, None] & known[None]
    excess = cosine - jnp.diagonal(cosine)[:, None] + margin
    loss = jnp.sum(jnp.where(counts & ~diagonal, jax.nn.relu(excess), 0.0))
    return loss / jnp.maximum(counts.sum(), 1)


def locality(
    cosine: Float[Array, "n m"],
    other: Float[Array, "n m"],
    *,
    top: int,
    slack: float,
    known: Bool[Array, "n"] | None = None,
) -> Float[Array, ""]:
    """max(0, (D - D')² - slack), mean over the `top` largest of each row of D: neighbours keep their distance in D'."""
    nearest, place = jax.lax.top_k(cosine, min(top, cosine.shape[1]))
    apart = jnp.square(nearest - jnp.take_along_axis(other, place, axis=1))
    loss = jax.nn.relu(apart - slack).mean(axis=1)
    if known is None:
        return loss.mean()
    return jnp.sum(jnp.where(known, loss, 0.0)) / jnp.maximum(known.sum(), 1)
