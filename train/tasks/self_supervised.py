"""Retrieval by clicks, and beside it items that must know their own other view."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.contrastive import softmax_contrastive
from train.tasks.base import Logs
from train.tasks.contrastive import InBatchSoftmax, _array


@chz.chz
class SelfSupervised(InBatchSoftmax):
    """L + α L_self, L_self = -log softmax of cos(z_i, z'_j) / τ at j = i, over "view_a" and "view_b" of corpus items.

    An item that was drawn twice is no negative of itself. "self_accuracy" is how often an item's view is the nearest.
    """

    alpha: float = chz.field(default=0.3, doc="weight of the views' loss")
    view_temperature: float = chz.field(default=0.1, doc="τ of the views")
    view_key: str = chz.field(default="view/key", doc="array that tells the items of the views apart")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        main, logs = super().loss(outputs, batch)
        views = [outputs.get(name) for name in ("view_a", "view_b")]
        if views[0] is None or views[1] is None:
            raise UserError("SelfSupervised compares two views: train SSLTwoTower, with MaskedViews in the loader")
        key = _array(batch, self.view_key)
        own = softmax_contrastive(
            views[0],
            views[1],
            scale=1 / self.view_temperature,
            labels=key,
            symmetric=False,
            chunk=self.chunk,
            axis=self.axis,
        )
        total = main + self.alpha * own
        found: Logs = {**logs, "loss": total, "main_loss": main, "self_loss": own}
        if self.chunk is None:  # the accuracy needs all products at once
            first = jnp.argmax(views[0] @ views[1].T, axis=1)
            found["self_accuracy"] = jnp.mean(key[first] == key)
        return total, found
