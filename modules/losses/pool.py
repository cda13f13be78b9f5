"""A softmax over negatives that a rule has chosen from the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modules.losses.items import HIDDEN, mean_where


def pool_contrastive(
    query: Float[Array, "n d"],
    item: Float[Array, "m d"],
    *,
    positive: Bool[Array, "n m"],
    pool: Bool[Array, "n m"],
    temperature: float,
    where: Bool[Array, "n"],
) -> Float[Array, ""]:
    """-log of the softmax of q·i / τ at the one `positive` of each row, over it and the `pool`; mean over `where`."""
    logits = jnp.einsum("nd,md->nm", query, item, preferred_element_type=jnp.float32) / temperature
    at_pair = jnp.sum(jnp.where(positive, logits, 0.0), axis=1)
    every = jax.nn.logsumexp(jnp.where(pool | positive, logits, HIDDEN), axis=1)
    return mean_where(every - at_pair, where=where)
