"""Contrastive losses between two sides of a batch, whose negatives are the whole batch on all devices.

Row i of `query` belongs to row i of `item`. Rows of equal `labels` are, by `positives`:
    "one"  neither positive nor negative of each other (false-negative mask);
    "all"  positives of each other.
Items of which one is nearly the other (cosine above `duplicate`) are no negatives of each other's queries either.
Rows where `where` is False are no part of the loss, neither as a query nor as an item. Beyond the batch a query may
have `negatives` of its own, and all of them those of a `bank`; these have no queries to be ranked for.
With `chunk` no device ever holds more logits than its rows times `chunk`: each device keeps its queries while
the items travel round the mesh axis, and every block of logits is folded into sums at once. Values and
gradients are those of the dense form.
"""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modules.layers.similarity import unit

Positives = Literal["one", "all"]

LOWEST = -1e30


class Side(NamedTuple):
    """One side of the pairs: vectors, global row numbers, labels and log sampling rates."""

    x: Float[Array, "n d"]
    row: Int[Array, "n"]
    label: Int[Array, "n"] | None = None
    logq: Float[Array, "n"] | None = None
    known: Bool[Array, "n"] | None = None  # rows that count
    twin: Float[Array, "n d"] | None = None  # of a query: its item, at unit length, to know the item's duplicates by
    extra: "Outside | None" = None  # of a query: negatives of its own


class Outside(NamedTuple):
    """Negatives that are not of the batch, one axis more than `where`: a query's own, or those of a bank."""

    x: Float[Array, "*n k d"]
    where: Bool[Array, "*n k"] | None = None
    label: Int[Array, "*n k"] | None = None  # what has a query's label is no negative of it


class Fold(NamedTuple):
    """What a softmax over the logits seen so far leaves behind, per row."""

    top: Float[Array, "n"]  # largest logit
    mass: Float[Array, "n"]  # sum of exp(logit - top)
    positive: Float[Array, "n"]  # sum of the positives' logits
    positives: Float[Array, "n"]
    total: Float[Array, "n"]  # sum of all logits
    allowed: Float[Array, "n"]  # how many those are


def scale_of(log_scale: Float[Array, ""], *, largest: float = 100.0) -> Float[Array, ""]:
    """exp of a learned log scale, at most `largest`; beyond that only a pull downwards passes."""
    return jnp.exp(_at_most(log_scale, math.log(largest)))


def softmax_contrastive(
    query: Float[Array, "n d"],
    item: Float[Array, "n d"],
    *,
    scale: Float[Array, ""] | float,
    labels: Int[Array, "n"] | None = None,
    positives: Positives = "one",
    smoothing: float = 0.0,
    logq: Float[Array, "n"] | None = None,
    where: Bool[Array, "n"] | None = None,
    duplicate: float | None = None,
    negatives: Outside | None = None,
    bank: Outside | None = None,
    symmetric: bool = True,
    chunk: int | None = None,
    axis: str = "data",
) -> Float[Array, ""]:
    """InfoNCE: -log of the softmax of scale q·i at the pair, mean over queries and, if symmetric, over items.

    `logq` holds the log of the rate at which each item comes into a batch; it is taken off the item's logits
    where they compete for a query. `smoothing` spreads that much of the target over all allowed pairs.
    """

    def run(query: Side, item: Side, shared, chunk, axis):
        scale, bank = shared

        def block(rows: Fold, item: Side, columns: Fold | None) -> tuple[Fold, Fold | None]:
            logits, positive, allowed = _logits(query, item, scale=scale, positives=positives, duplicate=duplicate)
            rows = _merge(rows, _fold(_less(logits, item.logq, axis=0), positive, allowed, axis=1))
            return rows, None if columns is None else _merge(columns, _fold(logits, positive, allowed, axis=0))

        back, start = _empty(item) if symmetric else None, _empty(query)
        for logits, allowed in _outside(query, bank, scale=scale, duplicate=duplicate):
            start = _merge(start, _fold(logits, jnp.zeros_like(allowed), allowed, axis=1))
        rows, columns = _travel(block, query, item, start=start, back=back, chunk=chunk, axis=axis)
        loss = _sum(_cross_entropy(rows, smoothing=smoothing), query.known)
        if not symmetric:
            return loss
        return (loss + _sum(_cross_entropy(columns, smoothing=smoothing), item.known)) / 2

    sides = _sides(query, item, labels=labels, logq=logq, known=where, duplicate=duplicate, extra=negatives)
    return _over_mesh(run, sides, (_number(scale), bank), chunk=chunk, axis=axis) / _count(query, where)


def sigmoid_contrastive(
    query: Float[Array, "n d"],
    item: Float[Array, "n d"],
    *,
    scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float = 0.0,
    labels: Int[Array, "n"] | None = None,
    positives: Positives = "one",
    where: Bool[Array, "n"] | None = None,
    duplicate: float | None = None,
    negatives: Outside | None = None,
    bank: Outside | None = None,
    chunk: int | None = None,
    axis: str = "data",
) -> Float[Array, ""]:
    """-Σ_ij log σ(±(scale q_i·i_j + bias)) / n (SigLIP, Zhai et al., ICCV 2023, eq. 1)."""

    def run(query: Side, item: Side, shared, chunk, axis):
        (scale, bias), bank = shared

        def block(total, item: Side, _):
            logits, positive, allowed = _logits(query, item, scale=scale, positives=positives, duplicate=duplicate)
            signed = jnp.where(positive, 1.0, -1.0) * (logits + bias)
            return total - jnp.sum(jnp.where(allowed, jax.nn.log_sigmoid(signed), 0.0), axis=1), None

        start = _empty(query).mass
        for logits, allowed in _outside(query, bank, scale=scale, duplicate=duplicate):
            start -= jnp.sum(jnp.where(allowed, jax.nn.log_sigmoid(-logits - bias), 0.0), axis=1)
        total, _ = _travel(block, query, item, start=start, back=None, chunk=chunk, axis=axis)
        return _sum(total, query.known)

    sides = _sides(query, item, labels=labels, known=where, duplicate=duplicate, extra=negatives)
    shared = ((_number(scale), _number(bias)), bank)
    return _over_mesh(run, sides, shared, chunk=chunk, axis=axis) / _count(query, where)


# -- one block of logits -----------------------------------------------------------------------------------


def _sides(query, item, *, labels=None, logq=None, known=None, duplicate=None, extra=None) -> tuple[Side, Side]:
    row = jnp.arange(query.shape[0])
    twin = None if duplicate is None else _direction(item)
    asking = Side(query, row, labels, known=known, twin=twin, extra=extra)
    return asking, Side(item, row, labels, logq, known=known)


def _logits(
    query: Side, item: Side, *, scale, positives: Positives, duplicate: float | None
) -> tuple[Float[Array, "q i"], Bool[Array, "q i"], Bool[Array, "q i"]]:
    """Logits of a block, which of its pairs are positive, and which count at all."""
    logits = scale * jnp.einsum("qd,id->qi", query.x, item.x, preferred_element_type=jnp.float32)
    pair = query.row[:, None] == item.row[None]
    same, counts = pair, jnp.ones_like(pair)
    if query.known is not None and item.known is not None:
        counts = query.known[:, None] & item.known[None]
    if query.label is not None and item.label is not None:
        same = same | (counts & (query.label[:, None] == item.label[None]))
    if query.twin is not None and duplicate is not None:
        counts &= jnp.einsum("qd,id->qi", query.twin, _direction(item.x)) <= duplicate
    # A pair counts even if it is unknown, so that no softmax is empty; its row is left out of the sum.
    return (logits, same, counts | same) if positives == "all" else (logits, pair, (counts & ~same) | pair)


def _outside(
    query: Side, bank: Outside | None, *, scale, duplicate: float | None
) -> list[tuple[Float[Array, "q _"], Bool[Array, "q _"]]]:
    """Logits of the negatives beyond the batch, and which count."""
    found = []
    for these in (query.extra, bank):
        if these is not None and these.x.shape[-2]:
            letters = "qd,qkd->qk" if these.x.ndim == 3 else "qd,kd->qk"
            logits = scale * jnp.einsum(letters, query.x, these.x, preferred_element_type=jnp.float32)
            where = jnp.ones(these.x.shape[:-1], bool) if these.where is None else these.where
            allowed = jnp.broadcast_to(where if where.ndim == 2 else where[None], logits.shape)
            if query.label is not None and these.label is not None:
                label = these.label if these.label.ndim == 2 else these.label[None]
                allowed = allowed & (query.label[:, None] != label)
            if query.twin is not None and duplicate is not None:
                allowed = allowed & (jnp.einsum(letters, query.twin, _direction(these.x)) <= duplicate)
            found.append((logits, allowed))
    return found


def _direction(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    return unit(jax.lax.stop_gradient(x).astype(jnp.float32))


def _number(value) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


def _sum(loss: Float[Array, "n"], known: Bool[Array, "n"] | None) -> Float[Array, ""]:
    return jnp.sum(loss if known is None else jnp.where(known, loss, 0.0))


def _count(x: Float[Array, "n d"], known: Bool[Array, "n"] | None) -> Int[Array, ""] | int:
    """Rows that count; of a batch without any the loss is 0."""
    return x.shape[0] if known is None else jnp.maximum(known.sum(), 1)


def _less(logits, logq, *, axis: int):
    return logits if logq is None else logits - jnp.expand_dims(logq, axis)


def _fold(logits, positive, allowed, *, axis: int) -> Fold:
    # The result does not depend on `top`, so no gradient need flow through it.
    top = jnp.max(jnp.where(allowed, jax.lax.stop_gradient(logits), LOWEST), axis=axis)
    shifted = jnp.where(allowed, logits - jnp.expand_dims(top, axis), LOWEST)
    return Fold(
        top=top,
        mass=jnp.sum(jnp.exp(shifted), axis=axis),
        positive=jnp.sum(jnp.where(positive, logits, 0.0), axis=axis),
        positives=jnp.sum(positive, axis=axis, dtype=jnp.float32),
        total=jnp.sum(jnp.where(allowed, logits, 0.0), axis=axis),
        allowed=jnp.sum(allowed, axis=axis, dtype=jnp.float32),
    )


def _empty(side: Side) -> Fold:
    # Made from the side's own rows, so that inside shard_map it varies over the axis as they do.
    zero = jnp.zeros_like(side.row, dtype=jnp.float32)
    return Fold(top=zero + LOWEST, mass=zero, positive=zero, positives=zero, total=zero, allowed=zero)


def _merge(a: Fold, b: Fold) -> Fold:
    top = jnp.maximum(a.top, b.top)
    return Fold(
        top=top,
        mass=a.mass * jnp.exp(a.top - top) + b.mass * jnp.exp(b.top - top),
        positive=a.positive + b.positive,
        positives=a.positives + b.positives,
        total=a.total + b.total,
        allowed=a.allowed + b.allowed,
    )


def _cross_entropy(fold: Fold, *, smoothing: float) -> Float[Array, "n"]:
    target = (1 - smoothing) * fold.positive / fold.positives + smoothing * fold.total / fold.allowed
    return fold.top + jnp.log(fold.mass) - target


# -- all blocks --------------------------------------------------------------------------------------------


def _travel(block, query: Side, item: Side, *, start, back, chunk: int | None, axis: str | None):
    """Shows every block of items, on every device of `axis`, to the local queries.

    `block(carry, items, carried back) -> (carry, carried back)`: the carry stays with the queries, what is
    carried back stays with the items and is home again at the end.
    """
    local = item.x.shape[0]
    chunk = local if chunk is None else min(chunk, local)
    if local % chunk:
        raise ValueError(f"{local} rows per device do not divide into chunks of {chunk}")
    if chunk == local and axis is None:
        return block(start, item, back)
    step = jax.checkpoint(lambda carry, part: block(carry, *part), prevent_cse=False)
    devices = 1 if axis is None else jax.lax.axis_size(axis)

    def turn(carry, _):
        carry, parts = carry
        carry, back = jax.lax.scan(step, carry, parts)
        parts = (parts[0], back)
        if devices > 1:
            ring = [(i, (i + 1) % devices) for i in range(devices)]
            parts = jax.lax.ppermute(parts, axis, ring)
        return (carry, parts), None

    parts = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), (item, back))
    (carry, (_, back)), _ = jax.lax.scan(turn, (start, parts), length=devices)
    return carry, jax.tree.map(lambda x: x.reshape(local, *x.shape[2:]), back)


def _over_mesh(run, sides: tuple[Side, Side], shared, *, chunk: int | None, axis: str) -> Float[Array, ""]:
    """Sum of `run` over devices if chunked on a mesh; else the partitioner sees one dense program.

    `shared` is what every device sees whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if chunk is None or axis not in mesh.axis_names:
        return run(*sides, shared, chunk, None)
    spec = jax.P(axis)

    @functools.partial(jax.shard_map, in_specs=(spec, spec, jax.P()), out_specs=jax.P())
    def local(query, item, shared):
        return jax.lax.psum(run(query, item, shared, chunk, axis), axis)

    return local(*sides, shared)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_most(x, largest: float):
    return jnp.minimum(x, largest)


def _at_most_forward(x, largest: float):
    return jnp.minimum(x, largest), x


def _at_most_backward(largest: float, x, grad):
    return (jnp.where((x > largest) & (grad < 0), 0.0, grad),)


_at_most.defvjp(_at_most_forward, _at_most_backward)
