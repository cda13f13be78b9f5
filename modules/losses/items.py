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

    With `chunk`, logits of that many positions per row exist at a time, and each once: what the backward pass needs is
    summed up with the loss. Chunks run along the positions, so that a batch sharded over devices stays so.
    """
    if chunk is None or chunk >= hidden.shape[1]:
        rows = hidden.reshape(-1, hidden.shape[-1])
        nll = _nll(_logits(rows, items, first=first), targets.reshape(-1))
        return mean_where(nll, where=where.reshape(-1))
    return _chunked(first, chunk, (hidden, items, targets, where)) / jnp.maximum(jnp.sum(where), 1)


def _logits(hidden: Float[Array, "n d"], items: Float[Array, "v d"], *, first: int) -> Float[Array, "n v"]:
    bias = jnp.where(jnp.arange(items.shape[0]) < first, HIDDEN, 0.0)
    return jnp.einsum("nd,vd->nv", hidden, items, preferred_element_type=jnp.float32) + bias[None]


def _nll(logits: Float[Array, "n v"], targets: Int[Array, " n"]) -> Float[Array, " n"]:
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


Given = tuple[Float[Array, "b t d"], Float[Array, "v d"], Int[Array, "b t"], Bool[Array, "b t"]]
"""hidden, items, targets and where."""
Gradients = tuple[Float[Array, "b t d"], Float[Array, "v d"]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunked(first: int, chunk: int, given: Given) -> Float[Array, ""]:
    """The sum over the chosen positions."""
    hidden, items, targets, where = given

    def body(total, part):
        hidden, targets, where = part
        nll = _nll(_logits(hidden, items, first=first), targets)
        return total + jnp.sum(jnp.where(where, nll, 0.0)), None

    parts = tuple(_split(x, chunk=chunk) for x in (hidden, targets, where))
    return jax.lax.scan(body, jnp.zeros(()), parts)[0]


def _chunked_with_gradients(first: int, chunk: int, given: Given) -> tuple[Float[Array, ""], Gradients]:
    """The gradient of a position's loss by its logits is softmax - onehot: nothing needs the logits a second time."""
    hidden, items, targets, where = given
    rows = jnp.arange(items.shape[0])[None]

    def body(carry, part):
        total, of_items = carry
        hidden, targets, where = part
        logits = _logits(hidden, items, first=first)
        most = jnp.max(logits, axis=-1, keepdims=True)
        powers = jnp.exp(logits - most)
        mass = jnp.sum(powers, axis=-1, keepdims=True)
        nll = (jnp.log(mass) + most)[..., 0] - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        weight = where[..., None].astype(powers.dtype)
        by_logits = powers * (weight / mass) - jnp.where(rows == targets[..., None], weight, 0.0)
        by_logits = by_logits.astype(hidden.dtype)
        of_hidden = jnp.einsum("nv,vd->nd", by_logits, items)
        of_items += jnp.einsum("nv,nd->vd", by_logits, hidden, preferred_element_type=jnp.float32)
        return (total + jnp.sum(jnp.where(where, nll, 0.0)), of_items), of_hidden

    parts = tuple(_split(x, chunk=chunk) for x in (hidden, targets, where))
    begin = jnp.zeros(()), jnp.zeros(items.shape, jnp.float32)
    (total, of_items), of_hidden = jax.lax.scan(body, begin, parts)
    by_row = jnp.moveaxis(of_hidden.reshape(-1, hidden.shape[0], chunk, hidden.shape[2]), 0, 1)
    joined = by_row.reshape(hidden.shape[0], -1, hidden.shape[2])[:, : hidden.shape[1]]
    return total, (joined, of_items.astype(items.dtype))


def _chunked_backward(
    first: int, chunk: int, gradients: Gradients, cotangent: Float[Array, ""]
) -> tuple[tuple[Array, Array, None, None]]:
    of_hidden, of_items = (g * cotangent.astype(g.dtype) for g in gradients)
    return ((of_hidden, of_items, None, None),)


_chunked.defvjp(_chunked_with_gradients, _chunked_backward)


def _split(x: Array, *, chunk: int) -> Array:
    """[c, n, ...]: chunks of the positions of all rows; the last is filled with zeros, which `where` leaves out."""
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % chunk)) + ((0, 0),) * (x.ndim - 2))
    chunks = jnp.moveaxis(padded.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)
    return chunks.reshape(chunks.shape[0], -1, *x.shape[2:])


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
