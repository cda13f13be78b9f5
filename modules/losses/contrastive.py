"""Contrastive losses between two sides of a batch, whose negatives are the whole batch on all devices.

Row i of `query` belongs to row i of `item`. Rows of equal `labels` are, by `positives`:
    "one"  neither positive nor negative of each other (false-negative mask);
    "all"  positives of each other.
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

Positives = Literal["one", "all"]

LOWEST = -1e30


class Side(NamedTuple):
    """One side of the pairs: vectors, global row numbers, labels and log sampling rates."""

    x: Float[Array, "n d"]
    row: Int[Array, "n"]
    label: Int[Array, "n"] | None
    logq: Float[Array, "n"] | None


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
    symmetric: bool = True,
    chunk: int | None = None,
    axis: str = "data",
) -> Float[Array, ""]:
    """InfoNCE: -log of the softmax of scale q·i at the pair, mean over queries and, if symmetric, over items.

    `logq` holds the log of the rate at which each item comes into a batch; it is taken off the item's logits
    where they compete for a query. `smoothing` spreads that much of the target over all allowed pairs.
    """
    count = query.shape[0]

    def run(query: Side, item: Side, scale, chunk, axis):
        def block(rows: Fold, item: Side, columns: Fold | None) -> tuple[Fold, Fold | None]:
            logits, positive, allowed = _logits(query, item, scale=scale, positives=positives)
            rows = _merge(rows, _fold(_less(logits, item.logq, axis=0), positive, allowed, axis=1))
            return rows, None if columns is None else _merge(columns, _fold(logits, positive, allowed, axis=0))

        back = _empty(item) if symmetric else None
        rows, columns = _travel(block, query, item, start=_empty(query), back=back, chunk=chunk, axis=axis)
        loss = jnp.sum(_cross_entropy(rows, smoothing=smoothing))
        if not symmetric:
            return loss
        return (loss + jnp.sum(_cross_entropy(columns, smoothing=smoothing))) / 2

    return _over_mesh(run, _sides(query, item, labels=labels, logq=logq), scale, chunk=chunk, axis=axis) / count


def sigmoid_contrastive(
    query: Float[Array, "n d"],
    item: Float[Array, "n d"],
    *,
    scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float = 0.0,
    labels: Int[Array, "n"] | None = None,
    positives: Positives = "one",
    chunk: int | None = None,
    axis: str = "data",
) -> Float[Array, ""]:
    """-Σ_ij log σ(±(scale q_i·i_j + bias)) / n (SigLIP, Zhai et al., ICCV 2023, eq. 1)."""
    count = query.shape[0]

    def run(query: Side, item: Side, parts, chunk, axis):
        def block(total, item: Side, _):
            logits, positive, allowed = _logits(query, item, scale=parts[0], positives=positives)
            signed = jnp.where(positive, 1.0, -1.0) * (logits + parts[1])
            return total - jnp.sum(jnp.where(allowed, jax.nn.log_sigmoid(signed), 0.0), axis=1), None

        total, _ = _travel(block, query, item, start=_empty(query).mass, back=None, chunk=chunk, axis=axis)
        return jnp.sum(total)

    return _over_mesh(run, _sides(query, item, labels=labels), (scale, bias), chunk=chunk, axis=axis) / count


# -- one block of logits -----------------------------------------------------------------------------------


def _sides(query, item, *, labels=None, logq=None) -> tuple[Side, Side]:
    row = jnp.arange(query.shape[0])
    return Side(query, row, labels, None), Side(item, row, labels, logq)


def _logits(
    query: Side, item: Side, *, scale, positives: Positives
) -> tuple[Float[Array, "q i"], Bool[Array, "q i"], Bool[Array, "q i"]]:
    """Logits of a block, which of its pairs are positive, and which count at all."""
    logits = scale * jnp.einsum("qd,id->qi", query.x, item.x, preferred_element_type=jnp.float32)
    pair = query.row[:, None] == item.row[None]
    if query.label is None or item.label is None:
        return logits, pair, jnp.ones_like(pair)
    same = query.label[:, None] == item.label[None]
    if positives == "all":
        return logits, same | pair, jnp.ones_like(pair)
    return logits, pair, pair | ~same


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


def _over_mesh(run, sides: tuple[Side, Side], scalars, *, chunk: int | None, axis: str) -> Float[Array, ""]:
    """Sum of `run` over devices if chunked on a mesh; else the partitioner sees one dense program."""
    mesh = jax.sharding.get_abstract_mesh()
    scalars = jax.tree.map(lambda s: jnp.asarray(s, jnp.float32), scalars)
    if chunk is None or axis not in mesh.axis_names:
        return run(*sides, scalars, chunk, None)
    spec = jax.P(axis)

    @functools.partial(jax.shard_map, in_specs=(spec, spec, jax.P()), out_specs=jax.P())
    def local(query, item, scalars):
        return jax.lax.psum(run(query, item, scalars, chunk, axis), axis)

    return local(*sides, scalars)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_most(x, largest: float):
    return jnp.minimum(x, largest)


def _at_most_forward(x, largest: float):
    return jnp.minimum(x, largest), x


def _at_most_backward(largest: float, x, grad):
    return (jnp.where((x > largest) & (grad < 0), 0.0, grad),)


_at_most.defvjp(_at_most_forward, _at_most_backward)
