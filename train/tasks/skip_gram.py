"""Skip-gram with negative sampling: an item against what was taken with it and what was not."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from data.features import FIRST
from modules.base import Batch, Outputs
from modules.layers.similarity import unit
from modules.losses.items import sampled_bce
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class SkipGram(Task):
    """-log σ(q·i) - Σ_k log σ(-q·n_k), mean over rows, of "query", "item" and "negatives"."""

    item: str = chz.field(default="item", doc="ids of the items taken; negatives equal to them do not count")
    negatives: str = chz.field(default="negatives", doc="ids of the negatives [b, k]")
    cosine: bool = chz.field(default=True, doc="retrieval by the cosine; False: by the product that training raises")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if lost := {"query", "item", "negatives"} - outputs.keys():
            raise UserError(
                f"SkipGram lacks {', '.join(sorted(lost))}: give pairs, and PopularityNegatives in loader.transforms"
            )
        query, ids = outputs["query"], batch[self.negatives]
        loss = sampled_bce(
            jnp.einsum("bd,bd->b", query, outputs["item"]),
            jnp.einsum("bd,bkd->bk", query, outputs["negatives"]),
            where=jnp.ones(query.shape[0], bool),
            hits=(ids < FIRST) | (ids == batch[self.item][:, None]),
        )
        return with_aux(loss, outputs)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        sides = [side for side in ("query", "item") if side in outputs]
        return {side: unit(outputs[side]) if self.cosine else outputs[side] for side in sides}
