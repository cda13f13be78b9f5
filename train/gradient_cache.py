"""Gradients of one loss over a batch whose rows are encoded a part at a time (GradCache, Gao et al., RepL4NLP 2021).

Every part is encoded without keeping what its backward pass would need; the loss of the whole batch is taken on the
outputs, and its gradients there are what each part is encoded once more for. The result is that of the whole batch,
with the activations of one part. A model that treats rows alone gives the same to rounding; batch statistics and
dropout are those of the parts, as whenever a batch is divided.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from modules.base import Batch, Outputs
from train.tasks.base import Logs

Cotangents = dict[str, jax.Array]
"""Gradients of the loss by each floating output, stacked by part."""

Forward = Callable[[Batch, dict, jax.Array | int], tuple[Outputs, dict]]
"""(part, statistics, number of the part) to outputs and new statistics."""


def in_parts(batch: Batch, parts: int) -> dict[str, jax.Array]:
    """[parts, rows, ...]; strided, so that each part keeps its share of every device's rows."""
    return {n: jnp.swapaxes(a.reshape(len(a) // parts, parts, *a.shape[1:]), 0, 1) for n, a in batch.items()}


def cotangents(
    forward: Forward,
    loss: Callable[[Outputs, Batch], tuple[jax.Array, Logs]],
    batch: Batch,
    *,
    micro: Batch,
    stats: dict,
) -> tuple[Cotangents, Logs]:
    """Of the loss over `batch`, whose parts are `micro`; and its logs."""

    def encode(carry, part):
        stats, index = carry
        outputs, stats = forward(part, stats, index)
        return (stats, index + 1), outputs

    _, stacked = jax.lax.scan(encode, (stats, 0), micro)
    parts = len(next(iter(micro.values())))
    # An output that does not grow with the batch is the parameters' own (a temperature) or a mean over rows.
    whole = jax.eval_shape(lambda b: forward(b, stats, 0)[0], batch)
    by_row = {name: whole[name].shape != value.shape[1:] for name, value in stacked.items()}
    outputs = {n: _joined(value) if by_row[n] else jnp.mean(value, axis=0) for n, value in stacked.items()}
    exact = {n for n, value in outputs.items() if jnp.issubdtype(value.dtype, jnp.inexact)}
    fixed = {n: value for n, value in outputs.items() if n not in exact}
    grads, logs = jax.grad(lambda found: loss({**found, **fixed}, batch), has_aux=True)({n: outputs[n] for n in exact})
    stack = {
        n: in_parts({n: g}, parts)[n] if by_row[n] else jnp.broadcast_to(g / parts, (parts, *g.shape))
        for n, g in grads.items()
    }
    return stack, logs


def pulled(outputs: Outputs, cotangents: Cotangents) -> jax.Array:
    """A loss of one part whose gradient at its outputs is what the whole batch's loss asks of them."""
    return sum((jnp.sum(outputs[n] * g) for n, g in cotangents.items()), start=jnp.zeros(()))


def _joined(stacked: jax.Array) -> jax.Array:
    """The inverse of `in_parts`."""
    return jnp.swapaxes(stacked, 0, 1).reshape(-1, *stacked.shape[2:])
