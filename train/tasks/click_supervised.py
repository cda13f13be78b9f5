"""Pictures against the pictures clicked for them, and against other views of themselves: the losses of VED."""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.contrastive import softmax_contrastive
from modules.losses.pool import pool_contrastive
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class ClickSupervised(Task):
    """clicks · L_S2 + views · L_S1.

    A row's negatives are other rows' clicked pictures: those of other categories, and of its own those that nobody
    clicked for the same photo and that are not nearly the same picture. Rows without a picture are left out.
    """

    compares_rows = True

    clicks: float = chz.field(default=1.0, doc="weight of photo against clicked picture")
    views: float = chz.field(default=0.5, doc="weight of two views of one picture")
    temperature: float = 0.1
    pool: Literal["category", "batch"] = chz.field(
        default="category", doc="category: as above; batch: every other row is a negative"
    )
    item: str = chz.field(default="offer", doc="id of the clicked item")
    category: str = chz.field(default="leaf", doc="its category")
    co_clicked: str = chz.field(default="co_clicked", doc="ids [b, k] of other items clicked for the same photo")
    alike: float = chz.field(default=0.9, doc="cosine from which two pictures of a category are no negatives")

    @chz.validate
    def _learns_something(self) -> None:
        if not (self.clicks or self.views):
            raise ValueError("ClickSupervised learns nothing with both weights at zero")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {side: outputs[side] for side in ("query", "item") if side in outputs}

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        needed = (("query", "item") if self.clicks else ()) + (("view_a", "view_b") if self.views else ())
        if missing := [name for name in needed if name not in outputs]:
            raise UserError(f"ClickSupervised compares {missing[0]!r}, which the model does not give for this batch")
        total, logs = jnp.zeros(()), {}
        if self.clicks:
            logs["clicks"] = self._clicked(outputs, batch)
            total += self.clicks * logs["clicks"]
        if self.views:
            a, b = outputs["view_a"], outputs["view_b"]
            known = outputs["view_a/known"] & outputs["view_b/known"]
            logs["views"] = softmax_contrastive(a, b, scale=1 / self.temperature, where=known)
            total += self.views * logs["views"]
        total, named = with_aux(total, outputs)
        return total, {**named, **logs}

    def _clicked(self, outputs: Outputs, batch: Batch) -> jax.Array:
        item, known = outputs["item"], outputs["query/known"] & outputs["item/known"]
        pair = jnp.eye(len(item), dtype=bool)
        pool = ~pair if self.pool == "batch" else self._pool(item, batch)
        return pool_contrastive(
            outputs["query"],
            item,
            positive=pair,
            pool=pool & known[None],
            temperature=self.temperature,
            where=known,
        )

    def _pool(self, vectors: Float[Array, "n d"], batch: Batch) -> Bool[Array, "n n"]:
        if lost := [name for name in (self.item, self.category, self.co_clicked) if name not in batch]:
            raise UserError(f"ClickSupervised.pool reads {lost[0]!r}, which the batch does not have")
        item, category = batch[self.item], batch[self.category]
        co_clicked = (batch[self.co_clicked][:, None, :] == item[None, :, None]).any(axis=2)
        vectors = jax.lax.stop_gradient(vectors)
        alike = jnp.einsum("nd,md->nm", vectors, vectors) >= self.alike
        easy = category[:, None] != category[None]
        return (item[:, None] != item[None]) & (easy | ~(co_clicked | alike))
