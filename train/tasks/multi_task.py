"""Several labels of one row, each predicted by a head of its own."""

from collections.abc import Mapping

import chz
import jax
import jax.numpy as jnp
import optax

from modules.base import Batch, Outputs
from train.tasks.base import Logs, Predictions, Task, with_aux

LOGIT, SCORE = "logit/", "score/"


@chz.chz
class Head:
    """What one logit of the model learns."""

    label: str = chz.field(doc="label in [0, 1]; where it is NaN, nothing is learned from the row")
    weight: float = chz.field(default=1.0, doc="of this head's mean loss in the sum; 0: logged but not learned")
    where: str | None = chz.field(
        default=None, doc="array of the batch; only rows where it is not 0 count, such as click for a purchase after it"
    )


@chz.chz
class MultiTask(Task):
    """The weighted sum of each head's binary cross-entropy; predictions are `score/<name>` of every logit there is."""

    heads: Mapping[str, Head] = chz.field(doc="by name: `purchase` is the model's output logit/purchase")

    @chz.validate
    def _some_head_learns(self):
        if not any(head.weight > 0 for head in self.heads.values()):
            raise ValueError("task.heads: give at least one head a weight above 0")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        losses = {name: head_loss(_logit(outputs, name), head=head, batch=batch) for name, head in self.heads.items()}
        total, logs = with_aux(
            sum((self.heads[n].weight * loss for n, loss in losses.items()), start=jnp.zeros(())), outputs
        )
        return total, {**logs, **{f"loss/{name}": loss for name, loss in losses.items()}}

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return scores(outputs)


def scores(outputs: Outputs) -> Predictions:
    """The probability that each head predicts."""
    heads = {n.removeprefix(LOGIT): v for n, v in outputs.items() if n.startswith(LOGIT)}
    return {SCORE + name: jax.nn.sigmoid(logit.astype(jnp.float32)) for name, logit in heads.items()}


def head_loss(logit: jax.Array, *, head: Head, batch: Batch) -> jax.Array:
    """Mean over the rows whose label is known; 0 where none is."""
    label = batch[head.label].astype(jnp.float32)
    known = ~jnp.isnan(label)
    if head.where is not None:
        known &= batch[head.where] != 0
    losses = optax.sigmoid_binary_cross_entropy(logit.astype(jnp.float32), jnp.where(known, label, 0.0))
    return jnp.where(known, losses, 0.0).sum() / jnp.maximum(known.sum(), 1)


def _logit(outputs: Outputs, name: str) -> jax.Array:
    if LOGIT + name not in outputs:
        known = [n.removeprefix(LOGIT) for n in outputs if n.startswith(LOGIT)]
        raise KeyError(f"the model has no head {name!r}, but {', '.join(known) or 'none'}; mend task.heads")
    return outputs[LOGIT + name]
