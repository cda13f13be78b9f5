"""Losses of next-item models: scores of the true item against all others or against sampled ones.

Item tables keep a few first rows for "missing" and "unknown"; `first` is the first row that is an item.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

HIDDEN = -1e9
"""Logit of what must not be chosen: finite, and representable in bfloat16."""


def mean_where(values: Float[Array, "*b"], *, where: Bool[Array, "*b"]) -> Float[Array, ""]:
    """Mean over the chosen entries; 0 where none is chosen."""
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)


def full_softmax(
    hidden: Float[Array, "b t d"],
    items: Float[Array, "v d"],
    targets: Int[Array, "b t"],
    *,
    where: Bool[Array, "b t"],
    first: int = 0,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """Cross-entropy over the whole catalogue, mean over positions.

    With `chunk`, logits of that many positions per row exist at a time, in the backward pass too. Chunks run
    along the positions, so that a batch sharded over devices stays so.
    """
    bias = jnp.where(jnp.arange(items.shape[0]) < first, HIDDEN, 0.0)

    def nll(hidden, targets):
        logits = jnp.einsum("btd,vd->btv", hidden, items, preferred_element_type=jnp.float32) + bias[None, None]
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen

    length = hidden.shape[1]
    if chunk is None or chunk >= length:
        return mean_where(nll(hidden, targets), where=where)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(total, part):
        hidden, targets, where = (jnp.moveaxis(p, 0, 1) for p in part)
        return total + jnp.sum(jnp.where(where, nll(hidden, targets), 0.0)), None

    def split(x):
        padded = jnp.pad(x, ((0, 0), (0, -length % chunk)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(padded, 1, 0).reshape(-1, chunk, x.shape[0], *x.shape[2:])

    total, _ = jax.lax.scan(body, jnp.zeros(()), (split(hidden), split(targets), split(where)))
    return total / jnp.maximum(jnp.sum(where), 1)


def sampled_bce(
    positive: Float[Array, "*b"],
    negative: Float[Array, "*b n"],
    *,
    where: Bool[Array, "*b"],
    hits: Bool[Array, "*b n"],
    beta: float = 1.0,
) -> Float[Array, ""]:
    """-beta log σ(s⁺) - Σ log σ(-s⁻). `hits` marks negatives that are the target after all.

    beta < 1 is gBCE (Petrov & Macdonald, RecSys 2023, eq. 8), which takes back the overconfidence that few
    negatives cause; see `gbce_beta`.
    """
    loss = jnp.sum(jnp.where(hits, 0.0, jax.nn.softplus(negative)), axis=-1) + beta * jax.nn.softplus(-positive)
    return mean_where(loss, where=where)


def gbce_beta(*, negatives: int, items: int, calibration: float) -> float:
    """The exponent of gBCE: 1 at calibration 0; at 1 the scores are calibrated (same paper, eq. 9)."""
    rate = negatives / (items - 1)
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def sampled_softmax(
    positive: Float[Array, "*b"],
    negative: Float[Array, "*b n"],
    *,
    where: Bool[Array, "*b"],
    hits: Bool[Array, "*b n"],
    positive_logq: Float[Array, "*b"] | None = None,
    negative_logq: Float[Array, "*b n"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy of the target among itself and the samples, each score less the log of its sampling rate.

    Without the rates the sampler is taken as uniform, for which they cancel.
    """
    positive = positive if positive_logq is None else positive - positive_logq
    negative = negative if negative_logq is None else negative - negative_logq
    logits = jnp.concatenate([positive[..., None], jnp.where(hits, HIDDEN, negative)], axis=-1)
    return mean_where(jax.nn.logsumexp(logits, axis=-1) - positive, where=where)
