"""Pointwise prediction: the probability that each row's label is 1."""

import chz
import jax
import jax.numpy as jnp
import optax

from modules.base import Batch, Outputs
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class Pointwise(Task):
    """Binary cross-entropy of `logit` against a label in [0, 1]."""

    label: str = chz.field(default="click", doc="label that the logit predicts")
    weight: str | None = chz.field(default=None, doc="weight of each row in the loss; default: all 1")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        logit = outputs["logit"].astype(jnp.float32)
        losses = optax.sigmoid_binary_cross_entropy(logit, batch[self.label].astype(jnp.float32))
        if self.weight is None:
            return with_aux(losses.mean(), outputs)
        weight = batch[self.weight].astype(jnp.float32)
        # A batch whose weights are all zero teaches nothing, and must not give NaN.
        return with_aux((losses * weight).sum() / jnp.maximum(weight.sum(), 1e-9), outputs)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {"score": jax.nn.sigmoid(outputs["logit"].astype(jnp.float32))}
