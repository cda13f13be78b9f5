"""What a listing lacks, from the listings that look or read most like it.

The retrieval method of the task in Fu et al., "Benchmarking Multimodal Large Language Models for Missing Modality
Completion in Product Catalogues", arXiv 2601.19750, 2026: with p the vector of what is present, and (k_j, v_j) that
part and the missing one of the listings that have both,

    filled = sum over the n nearest of softmax_j(n(p) . n(k_j) / tau) v_j
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from modules.layers.similarity import unit


def nearest(
    present: Float[Array, "b d"], *, keys: Float[Array, "n d"], count: int, temperature: float
) -> tuple[Int[Array, "b m"], Float[Array, "b m"]]:
    """The listings that complete each row, and their weights, which sum to one."""
    likeness, which = jax.lax.top_k(unit(present) @ unit(keys).T, min(count, keys.shape[0]))
    return which, jax.nn.softmax(likeness / temperature, axis=1)


def fill(which: Int[Array, "b m"], weight: Float[Array, "b m"], *, values: Float[Array, "n e"]) -> Float[Array, "b e"]:
    return jnp.einsum("bm,bme->be", weight, values[which])
