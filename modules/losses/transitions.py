"""What follows an item, taught to its vector (Zhu et al., WSDM 2024)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modules.losses.items import HIDDEN, mean_where


def transition_distillation(
    student: Float[Array, "n d"],
    items: Float[Array, "v d"],
    *,
    successors: Int[Array, "n k"],
    strengths: Float[Array, "n k"],
    where: Bool[Array, "n"],
    temperature: float,
    first: int = 0,
) -> Float[Array, ""]:
    """-Σ_j p_j log q_j over the catalogue, q = softmax(x E^T / τ), p = softmax(s / τ); mean over rows.

    `strengths` are those of the listed `successors`, which differ; every other item has 0, so that p is never held as a
    row of the catalogue. An id below `first` only fills a list.
    """
    count = items.shape[0] - first
    bias = jnp.where(jnp.arange(items.shape[0]) < first, HIDDEN, 0.0)
    logits = jnp.einsum("nd,vd->nv", student, items, preferred_element_type=jnp.float32) / temperature
    chosen = jnp.take_along_axis(logits, successors, axis=1)
    # Above the exp(0) that every item has.
    more = jnp.where(successors >= first, jnp.exp(strengths / temperature) - 1, 0.0)
    total = count + more.sum(axis=1)
    expected = (logits[:, first:].sum(axis=1) + jnp.sum(more * chosen, axis=1)) / total
    return mean_where(jax.nn.logsumexp(logits + bias[None], axis=1) - expected, where=where)
