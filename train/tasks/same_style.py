"""Pairs of products of one style, each as picture, words and both: the three losses of eSSPR."""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.hinge import batch_hinge, locality
from train.tasks.base import Logs, Predictions, Task, with_aux

MODALITIES = ("image", "text", "both")
EVERY = tuple((a, b) for a in MODALITIES for b in MODALITIES)
Across = Literal["every", "alike", "pictures"]
ACROSS: dict[Across, tuple[tuple[str, str], ...]] = {
    "every": EVERY,
    "alike": tuple((a, b) for a, b in EVERY if a == b),
    "pictures": (("image", "image"),),
}
WITHIN = (("image", "text"), ("image", "both"), ("text", "both"))


@chz.chz
class SameStyle(Task):
    """Of the triggers "image", "text", "both" and the offers "offer_image", ...: row i belongs to row i.

    Product-to-product matching, self-distinctiveness (two modalities of one product against those of others), and
    locality (the nearest offers stay as near when the trigger changes its modality). A row whose side lacks a modality
    is left out of its pairs.
    """

    compares_rows = True

    matching: float = chz.field(default=1.0, doc="weight of product-to-product matching")
    distinct: float = chz.field(default=1.0, doc="weight of self-distinctiveness")
    local: float = chz.field(default=0.5, doc="weight of locality")
    margin: float = chz.field(default=0.2, doc="of the hinges")
    slack: float = chz.field(default=0.01, doc="squared change of a cosine that locality allows")
    nearest: int = chz.field(default=10, doc="offers of each trigger that locality holds")
    across: Across = chz.field(
        default="every",
        doc="modalities of trigger and offer that are matched: every one with every one, each with its like, or "
        "pictures with pictures alone",
    )
    same: tuple[str, ...] = chz.field(
        default=("trigger", "offer"),
        doc="ids in one numbering, or checksums of `SameContent`: rows of which any equals any of another's are no "
        "negatives of each other",
    )
    offer: str = chz.field(default="offer_", doc="before the names of the offers' outputs")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        names = [prefix + name for prefix in ("", self.offer) for name in MODALITIES]
        return {name: outputs[name] for name in names if name in outputs}

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        needed = [prefix + name for prefix in ("", self.offer) for name in MODALITIES]
        if missing := [name for name in needed if name not in outputs]:
            raise UserError(f"SameStyle compares {missing[0]!r}, which the model does not give for this batch")
        negatives = ~self._same(batch)

        def hinge(a: str, b: str) -> jax.Array:
            known = outputs[f"{a}/known"] & outputs[f"{b}/known"]
            return batch_hinge(outputs[a], outputs[b], margin=self.margin, known=known, negatives=negatives)

        sides = ("", self.offer)
        losses = {
            "matching": [hinge(a, self.offer + b) for a, b in ACROSS[self.across]],
            "distinct": [hinge(side + a, side + b) for side in sides for a, b in WITHIN],
            "local": [self._locality(outputs, name) for name in ("image", "text")],
        }
        logs = {name: jnp.stack(parts).mean() for name, parts in losses.items()}
        total = self.matching * logs["matching"] + self.distinct * logs["distinct"] + self.local * logs["local"]
        total, named = with_aux(total, outputs)
        return total, {**named, **logs}

    def _locality(self, outputs: Outputs, name: str) -> jax.Array:
        offers = outputs[f"{self.offer}both"]
        near, other = (jnp.einsum("qd,id->qi", outputs[n], offers) for n in ("both", name))
        known = outputs["both/known"] & outputs[f"{name}/known"]
        return locality(near, other, top=self.nearest, slack=self.slack, known=known)

    def _same(self, batch: Batch) -> Bool[Array, "n n"]:
        if lost := [name for name in self.same if name not in batch]:
            raise UserError(f"SameStyle.same reads {lost[0]!r}, which the batch does not have")
        rows = len(next(iter(batch.values())))
        same = jnp.zeros((rows, rows), bool)
        for a in self.same:
            for b in self.same:
                same |= batch[a][:, None] == batch[b][None]
        return same
