"""Tokens hidden from an encoder that is to tell them (Devlin et al., NAACL 2019, section 3.1)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

MASK, FIRST = 1, 2  # the unknown token stands for [MASK]; words start after it
BLANK, OTHER = 0.8, 0.1  # of the hidden: shown as [MASK], as a word by chance; the rest is shown as it is


def hide(
    ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], share: float, size: int, span: int = 1, rngs: nnx.Rngs
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"]]:
    """The ids as shown, and which of them are to be told: about a `share` of those that there are, out of `size`.

    With a `span` a hidden place hides up to that many in all, itself and those after it, any number alike often.
    """
    chosen, how, word = jax.random.uniform(rngs.dropout(), (3, *ids.shape))
    hidden = where & (chosen < share) if span == 1 else where & _spans(chosen, share=share, span=span, rngs=rngs)
    chance = FIRST + (word * (size - FIRST)).astype(ids.dtype)
    shown = jnp.where(how < BLANK, jnp.asarray(MASK, ids.dtype), jnp.where(how < BLANK + OTHER, chance, ids))
    return jnp.where(hidden, shown, ids), hidden


def _spans(chosen: Float[Array, "b t"], *, share: float, span: int, rngs: nnx.Rngs) -> Bool[Array, "b t"]:
    """Where a span begins, and the places after it that it covers."""
    begins = chosen < 2 * share / (span + 1)
    length = 1 + jnp.floor(jax.random.uniform(rngs.dropout(), chosen.shape) * span)
    covered = [jnp.pad(begins & (length > after), ((0, 0), (after, 0)))[:, : chosen.shape[1]] for after in range(span)]
    return jnp.any(jnp.stack(covered), axis=0)


def told(logits: Float[Array, "b t v"], *, ids: Int[Array, "b t"], hidden: Bool[Array, "b t"]) -> Float[Array, ""]:
    """-log softmax at the true id, mean over the hidden ones; 0 where none is."""
    right = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - right
    return jnp.sum(jnp.where(hidden, losses, 0.0)) / jnp.maximum(hidden.sum(), 1)
