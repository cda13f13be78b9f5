"""Pointwise prediction: the probability that each row's label is 1."""

import math

import chz
import jax
import jax.numpy as jnp
import optax

from modules.base import AUX_LOGIT, AUX_LOSS, Batch, Outputs
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class Pointwise(Task):
    """Binary cross-entropy of `logit` against a label in [0, 1]."""

    label: str = chz.field(default="click", doc="label that the logit predicts")
    weight: str | None = chz.field(default=None, doc="weight of each row in the loss; default: all 1")
    negative_share: float = chz.field(
        default=1.0, doc="share of the negatives that training kept; predictions are corrected for the rest"
    )

    @chz.validate
    def _share_is_one(self):
        if not 0 < self.negative_share <= 1:
            raise ValueError(f"task.negative_share is {self.negative_share}; give a share above 0, at most 1")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        heads = {n.removeprefix(AUX_LOGIT): v for n, v in outputs.items() if n.startswith(AUX_LOGIT)}
        further = {AUX_LOSS + name: self._mean_loss(logit, batch) for name, logit in heads.items()}
        return with_aux(self._mean_loss(outputs["logit"], batch), {**outputs, **further})

    def _mean_loss(self, logit: jax.Array, batch: Batch) -> jax.Array:
        losses = optax.sigmoid_binary_cross_entropy(logit.astype(jnp.float32), batch[self.label].astype(jnp.float32))
        if self.weight is None:
            return losses.mean()
        weight = batch[self.weight].astype(jnp.float32)
        # A batch whose weights are all zero teaches nothing, and must not give NaN.
        return (losses * weight).sum() / jnp.maximum(weight.sum(), 1e-9)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        # With a share w of the negatives kept the odds are 1 / w too high (He et al., ADKDD 2014, section 6.3).
        logit = outputs["logit"].astype(jnp.float32) + math.log(self.negative_share)
        return {"score": jax.nn.sigmoid(logit)}
