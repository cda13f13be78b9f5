"""Several contrastive losses between named vectors of a model's outputs, each with negatives of its own."""

from collections.abc import Mapping

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.contrastive import Outside, softmax_contrastive
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class Level:
    query: str = chz.field(doc="output whose row i belongs to row i of item")
    item: str
    weight: float = chz.field(default=1.0, doc="of its loss; 0: not computed")


@chz.chz
class Levels(Task):
    """Σ_l w_l InfoNCE(query_l, item_l), in both directions over the global batch.

    Beside an output of the model may stand "<item>/negatives" [b, k, d] of each query alone and "<item>/bank" [m, d]
    of all, and beside each of all these "<name>/known", False where nothing is there. Rows in which either side is
    missing are no part of a level.
    """

    compares_rows = True

    levels: Mapping[str, Level] = chz.field(doc="by the name that the loss is logged under")
    label: str | None = chz.field(default="spu", doc="array that is equal for rows that are no negatives of each other")
    temperature: float = 0.07
    chunk: int | None = chz.field(default=None, doc="as of Contrastive")
    gives: tuple[str, ...] = chz.field(default=("query", "image", "text", "fused"), doc="outputs to predict")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {name: outputs[name] for name in self.gives if name in outputs}

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.label is not None and self.label not in batch:
            raise UserError(f"the task reads {self.label!r}, which the batch does not have")
        total, logs = jnp.zeros(()), {}
        for name, level in self.levels.items():
            if level.weight:
                logs[name] = self._level(outputs, level, labels=None if self.label is None else batch[self.label])
                total += level.weight * logs[name]
        total, named = with_aux(total, outputs)
        return total, {**named, **logs}

    def _level(self, outputs: Outputs, level: Level, *, labels: jax.Array | None) -> jax.Array:
        if missing := {level.query, level.item} - outputs.keys():
            raise UserError(f"Levels compares {min(missing)!r}, which the model does not give for this batch")
        known = [outputs[f"{side}/known"] for side in (level.query, level.item) if f"{side}/known" in outputs]
        return softmax_contrastive(
            outputs[level.query],
            outputs[level.item],
            scale=1 / self.temperature,
            labels=labels,
            where=jnp.all(jnp.stack(known), axis=0) if known else None,
            negatives=_outside(outputs, f"{level.item}/negatives"),
            bank=_outside(outputs, f"{level.item}/bank"),
            chunk=self.chunk,
        )


def _outside(outputs: Outputs, name: str) -> Outside | None:
    if name not in outputs:
        return None
    return Outside(outputs[name], outputs.get(f"{name}/known"), outputs.get(f"{name}/label"))
