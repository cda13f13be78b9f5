"""The item after a whole history, by models that score the catalogue themselves."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from data.features import FIRST
from modules.base import Batch, Outputs, valid
from modules.losses.items import HIDDEN, mean_where
from train.tasks.base import Logs, Predictions, with_aux
from train.tasks.next_item import NextItem


@chz.chz
class RankNext(NextItem):
    """Full softmax of outputs["scores"] [b,v] at the label `target`, what is in the history left out as in serving."""

    target: str = chz.field(default="target", doc="label with the item after the history")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.target not in batch:
            raise UserError(f"RankNext needs the label {self.target!r}: train on a split that has one, such as valid")
        targets = batch[self.target]
        scores = outputs["scores"]
        chosen = jnp.take_along_axis(scores, targets[:, None], axis=1)[:, 0]
        if self.mask_history:
            seen = jnp.where(valid(batch, self.history), batch[self.history], 0)
            scores = jax.vmap(lambda row, ids: row.at[ids].set(HIDDEN))(scores, seen)
            # An item bought again is still the target.
            scores = jax.vmap(lambda row, one, value: row.at[one].set(value))(scores, targets, chosen)
        loss = mean_where(jax.nn.logsumexp(scores, axis=-1) - chosen, where=targets >= FIRST)
        return with_aux(loss, outputs)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        seen = jnp.where(valid(batch, self.history), batch[self.history], 0)
        return {"scores": outputs["scores"].astype(jnp.float32), "seen": seen}
