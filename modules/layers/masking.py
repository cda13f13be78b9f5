"""Tokens hidden from an encoder that is to tell them (Devlin et al., NAACL 2019, section 3.1)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

MASK, FIRST = 1, 2  # the unknown token stands for [MASK]; words start after it
BLANK, OTHER = 0.8, 0.1  # of the hidden: shown as [MASK], as a word by chance; the rest is shown as it is


def hide(
    ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], share: float, size: int, rngs: nnx.Rngs
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"]]:
    """The ids as shown, and which of them are to be told: about a `share` of those that there are, out of `size`."""
    chosen, how, word = jax.random.uniform(rngs.dropout(), (3, *ids.shape))
    hidden = where & (chosen < share)
    chance = FIRST + (word * (size - FIRST)).astype(ids.dtype)
    shown = jnp.where(how < BLANK, jnp.asarray(MASK, ids.dtype), jnp.where(how < BLANK + OTHER, chance, ids))
    return jnp.where(hidden, shown, ids), hidden


def told(logits: Float[Array, "b t v"], *, ids: Int[Array, "b t"], hidden: Bool[Array, "b t"]) -> Float[Array, ""]:
    """-log softmax at the true id, mean over the hidden ones; 0 where none is."""
    right = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - right
    return jnp.sum(jnp.where(hidden, losses, 0.0)) / jnp.maximum(hidden.sum(), 1)
