"""Pretraining of two sides together: do both match, and what was hidden of each?"""

import chz
import jax
import jax.numpy as jnp
import optax

from data.errors import UserError
from modules.base import Batch, Outputs
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class MatchAndTell(Task):
    """InterBERT's loss: MSM + MRM + ITM. Regions are told of matched pairs alone; a row that lacks a side matches
    nothing and is left out of ITM."""

    label: str = chz.field(default="match", doc="1 where both sides are of one thing, as `Mismatch` makes it")
    msm: float = chz.field(default=1.0, doc="weight of hidden words")
    mrm: float = chz.field(default=1.0, doc="weight of hidden regions")
    itm: float = chz.field(default=1.0, doc="weight of image-text matching")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        found: Predictions = {name: outputs[name] for name in ("text", "image") if name in outputs}
        return {**found, "score": outputs["match"]} if "match" in outputs else found

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.label not in batch:
            raise UserError(f"the task reads {self.label!r}, which the batch lacks: add Mismatch to loader.transforms")
        if "match" not in outputs:
            raise UserError("MatchAndTell needs a picture and a text in the training rows")
        label = batch[self.label].astype(jnp.float32)
        itm = _mean(optax.sigmoid_binary_cross_entropy(outputs["match"], label), outputs["match/known"])
        msm = _mean(outputs["msm"], outputs["msm/known"])
        mrm = _mean(outputs["mrm"], outputs["mrm/known"] & (label > 0))
        total, logs = with_aux(self.itm * itm + self.msm * msm + self.mrm * mrm, outputs)
        return total, {**logs, "itm": itm, "msm": msm, "mrm": mrm}


def _mean(loss: jax.Array, where: jax.Array) -> jax.Array:
    """Over the rows that count; 0 where none does."""
    return jnp.sum(jnp.where(where, loss, 0.0)) / jnp.maximum(where.sum(), 1)
