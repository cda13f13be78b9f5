"""InfoNCE of a person and an item against sampled items, which all rows of a batch share."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.items import sampled_softmax
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class SampledContrast(Task):
    """-log [e^{s+/τ} / (e^{s+/τ} + Σ e^{s-/τ})] over the model's vectors "query", "item" and "negatives" [n, d].

    A negative that is the row's item does not count.
    """

    temperature: float = 0.15
    item: str = chz.field(default="item", doc="array with the id of the row's item")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if "negatives" not in batch:
            raise UserError("SampledContrast reads 'negatives': add SharedNegatives to loader.transforms")
        query, ids = outputs["query"] / self.temperature, batch["negatives"].reshape(-1)
        positive = jnp.einsum("bd,bd->b", query, outputs["item"])
        negative = jnp.einsum("bd,nd->bn", query, outputs["negatives"])
        hits = ids[None] == batch[self.item][:, None]
        where = jnp.ones(positive.shape, bool)
        return with_aux(sampled_softmax(positive, negative, where=where, hits=hits), outputs)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {side: outputs[side] for side in ("query", "item") if side in outputs}
