"""The next item, and beside it intents: histories that the same item follows, and clusters of all histories."""

from collections.abc import Mapping
from typing import Any

import chz
import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.features import FIRST
from modules.base import Batch, Outputs
from modules.layers.kmeans import spherical_kmeans
from modules.losses.intents import coarse_intents, fine_intents
from train.tasks.base import Logs
from train.tasks.next_item import NextItem


@chz.chz
class IntentContrast(NextItem):
    """L + λ L_coarse + β L_fine (Qin et al., WSDM 2024), L the softmax of the one item after the history.

    Before each pass over the training rows their histories are clustered on the unit sphere; the paper has k-means with
    centres of unit length, which for states behind a layer norm is nearly the same.
    """

    coarse: float = chz.field(default=0.3, doc="λ; 0: no second history is read")
    fine: float = chz.field(default=0.1, doc="β; 0: nothing is clustered")
    temperature: float = chz.field(default=1.0, doc="of both")
    mask_false: bool = chz.field(default=True, doc="rows of the same target, or cluster, are no negatives")
    iterations: int = chz.field(default=20, doc="of k-means, at most")
    target: str = chz.field(default="target", doc="label with the item after the history")
    axis: str = chz.field(default="data", doc="mesh axis that the batch is split over")

    compares_rows = True

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.target not in batch:
            raise UserError(
                f"IntentContrast needs {self.target!r}: train on Prefixes, or add RandomPrefix to the loader"
            )
        target = batch[self.target]
        where = target >= FIRST
        one = {"hidden": outputs["last"][:, None], "items": outputs["items"]}
        total, _ = super().loss(one, {**batch, "targets": target[:, None]})
        logs: Logs = {"next_loss": total}
        if self.coarse or self.fine:
            if "other" not in outputs:
                raise UserError("IntentContrast compares two histories: train ICSRec, with SameTarget in the loader")
            views = outputs["last"], outputs["other"]
            given: dict[str, Any] = {
                "temperature": self.temperature,
                "masked": self.mask_false,
                "where": where,
                "axis": self.axis,
            }
        if self.coarse:
            logs["coarse_loss"] = coarse_intents(*views, target, **given)
            total = total + self.coarse * logs["coarse_loss"]
        if self.fine:
            near = sum(fine_intents(view, outputs["centres"], **given) for view in views)
            logs["fine_loss"] = jnp.where(outputs["centres/made"], near, 0.0)
            total = total + self.fine * logs["fine_loss"]
        return total, {"loss": total, **logs}

    @property
    def reads_before_pass(self) -> tuple[str, ...]:
        return ("user",) if self.fine else ()

    def before_pass(
        self, rows: Mapping[str, np.ndarray], *, stats: Mapping[str, np.ndarray], step: int
    ) -> dict[str, np.ndarray]:
        if "centres" not in stats:
            raise UserError("IntentContrast keeps its centres with the model: train ICSRec, or set task.fine=0")
        users, clusters = rows["user"], len(stats["centres"])
        if len(users) < clusters:
            raise UserError(f"{len(users)} training rows do not make {clusters} clusters; lower model.intents")
        _, centres = spherical_kmeans(users, clusters=clusters, iterations=self.iterations, seed=step)
        return {"centres": centres.astype(np.float32), "made": stats["made"] + 1}
