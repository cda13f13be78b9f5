"""Pairs against the rest of the batch: image-text alignment, and retrieval with in-batch negatives."""

from typing import Literal

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.contrastive import Outside, Positives, scale_of, sigmoid_contrastive, softmax_contrastive
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class Pairs(Task):
    """Row i of `query` belongs to row i of `item`. Negatives come from the global batch."""

    compares_rows = True

    chunk: int | None = chz.field(
        default=None, doc="items whose logits a device holds at a time, sent round the mesh; None: the whole batch"
    )
    axis: str = chz.field(default="data", doc="mesh axis that the batch is split over")
    temperature: float = chz.field(default=0.05, doc="of models that do not learn theirs")
    largest_scale: float = chz.field(default=100.0, doc="limit of a learned 1 / temperature")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {side: outputs[side] for side in ("query", "item") if side in outputs}

    def _sides(self, outputs: Outputs) -> tuple[jax.Array, jax.Array, jax.Array]:
        """query, item, scale"""
        for side in ("query", "item"):
            if side not in outputs:
                raise UserError(f"{type(self).__name__} needs both sides, but the batch lacks the features of {side!r}")
        if "log_scale" in outputs:
            scale = scale_of(outputs["log_scale"], largest=self.largest_scale)
        else:
            scale = jnp.asarray(1 / self.temperature)
        return outputs["query"], outputs["item"], scale


@chz.chz
class Contrastive(Pairs):
    """InfoNCE in both directions, or a sigmoid for each pair.

    A model may give further negatives: "negatives" [b, k, d] of each query alone, and "bank" [m, d] of all queries;
    beside each stands "<name>/known", False where a place is empty.
    """

    objective: Literal["softmax", "sigmoid"] = "softmax"
    label: str | None = chz.field(default=None, doc="array that is equal for rows that show the same thing")
    positives: Positives = chz.field(
        default="one", doc="rows of equal label: no negatives (one) or positives too (all)"
    )
    smoothing: float = chz.field(default=0.0, doc="share of the softmax target spread over all pairs")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        query, item, scale = self._sides(outputs)
        labels = None if self.label is None else _array(batch, self.label)
        negatives, bank = _outside(outputs, "negatives"), _outside(outputs, "bank")
        if self.objective == "softmax":
            loss = softmax_contrastive(
                query,
                item,
                scale=scale,
                labels=labels,
                positives=self.positives,
                smoothing=self.smoothing,
                duplicate=self._duplicate(),
                negatives=negatives,
                bank=bank,
                chunk=self.chunk,
                axis=self.axis,
            )
        else:
            loss = sigmoid_contrastive(
                query,
                item,
                scale=scale,
                bias=outputs.get("bias", 0.0),
                labels=labels,
                positives=self.positives,
                duplicate=self._duplicate(),
                negatives=negatives,
                bank=bank,
                chunk=self.chunk,
                axis=self.axis,
            )
        total, logs = with_aux(loss, outputs)
        return total, {**logs, "scale": scale}

    def _duplicate(self) -> float | None:
        return None


@chz.chz
class DistinctContrastive(Contrastive):
    """The same where items may stand in a batch twice under different labels."""

    duplicate: float = chz.field(default=0.99, doc="cosine with a query's own item above which others are no negatives")

    def _duplicate(self) -> float | None:
        return self.duplicate


@chz.chz
class InBatchSoftmax(Pairs):
    """-log softmax of s(q, i) / tau - log Q(i) over the batch's items (Yi et al., RecSys 2019, eq. 5).

    Popular items come as negatives more often; log Q takes that back.
    """

    item: str | None = chz.field(default="item", doc="id by which other rows with the same item are no negatives")
    logq: str | None = chz.field(
        default=None, doc="array with the log share of an item among the rows; None: no correction"
    )

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        query, item, scale = self._sides(outputs)
        loss = softmax_contrastive(
            query,
            item,
            scale=scale,
            labels=None if self.item is None else _array(batch, self.item),
            logq=None if self.logq is None else _array(batch, self.logq),
            symmetric=False,
            chunk=self.chunk,
            axis=self.axis,
        )
        total, logs = with_aux(loss, outputs)
        return total, {**logs, "scale": scale}


def _outside(outputs: Outputs, name: str) -> Outside | None:
    if name not in outputs:
        return None
    return Outside(outputs[name], outputs.get(f"{name}/known"), outputs.get(f"{name}/label"))


def _array(batch: Batch, name: str) -> jax.Array:
    if name not in batch:
        raise UserError(f"the task reads {name!r}, which the batch does not have; it has {', '.join(sorted(batch))}")
    return batch[name]
