"""S3-Rec's pre-training: four ways in which parts of a history belong together."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs, valid
from modules.losses.mutual import attribute_bce, pairwise
from train.tasks.base import Logs
from train.tasks.next_item import NextItem


@chz.chz
class S3Pretraining(NextItem):
    """Weighted sum of the losses of attributes, hidden items, attributes of hidden items and hidden segments.

    Predictions are those of SASRec with these weights, which have not learnt what comes next.
    """

    aap: float = chz.field(default=0.2, doc="weight of an item's attributes at the places that are shown")
    mip: float = chz.field(default=1.0, doc="weight of hidden items against items drawn uniformly")
    map: float = chz.field(default=1.0, doc="weight of hidden items' attributes")
    sp: float = chz.field(default=0.5, doc="weight of hidden segments against those of another user")
    squashed: bool = chz.field(
        default=False, doc="compare scores after a sigmoid, as the authors' program does, in place of BPR"
    )

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if "aap" not in outputs:
            raise UserError("S3Pretraining needs the outputs of S3Rec: set model=modules.sequential.s3rec:S3Rec")
        ids, hidden = batch[self.history], outputs["hidden"]
        shown = valid(batch, self.history) & ~hidden
        attributes, held, items = outputs["attributes"], outputs["attributes/of"], outputs["items"]
        right = jnp.einsum("btd,btd->bt", outputs["mip"], items[ids])
        wrong = jnp.einsum("btd,btd->bt", outputs["mip"], items[outputs["negatives"]])
        own, other = (jnp.einsum("bd,bd->b", outputs["sp"], outputs[name]) for name in ("segment", "borrowed"))
        parts = {
            "aap": attribute_bce(outputs["aap"], attributes, held=held, where=shown),
            "mip": pairwise(right, wrong, where=hidden & outputs["negatives/known"], squashed=self.squashed),
            "map": attribute_bce(outputs["map"], attributes, held=held, where=hidden),
            "sp": pairwise(own, other, where=outputs["segment/known"], squashed=self.squashed),
        }
        weights = {"aap": self.aap, "mip": self.mip, "map": self.map, "sp": self.sp}
        total = sum((weights[name] * part for name, part in parts.items()), start=jnp.zeros(()))
        return total, {"loss": total, **{f"{name}_loss": part for name, part in parts.items()}}
