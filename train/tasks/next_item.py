"""Next-item prediction: four losses over one model, and scores of the whole catalogue."""

from typing import Literal

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from data.features import FIRST
from modules.base import Batch, Outputs, valid
from modules.losses.items import HIDDEN, full_softmax, gbce_beta, sampled_bce, sampled_softmax
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class NextItem(Task):
    """State of each position against item `targets` at that position; 0 marks a position without target.

    The sampled losses read `negatives`: [b, t, n], or [b, n] shared by a row's positions. For "sampled_softmax"
    the log sampling rates may lie beside them as `targets/logq` and `negatives/logq`.
    """

    objective: Literal["softmax", "bce", "gbce", "sampled_softmax"] = chz.field(
        default="softmax", doc="full softmax, binary with sampled negatives, calibrated binary, sampled softmax"
    )
    chunk: int | None = chz.field(default=None, doc="positions whose full logits exist at a time; None: all")
    calibration: float = chz.field(default=0.75, doc="of gbce: 0 is plain bce, 1 fully calibrated")
    history: str = chz.field(default="history", doc="sequence that the scores follow from")
    mask_history: bool = chz.field(default=True, doc="serving never returns what is in the history")
    top_k: int = chz.field(default=10, doc="items that serving returns")
    pooled: bool = chz.field(
        default=False, doc="the shared negatives of all rows of a batch serve each of them: one product for many"
    )

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        hidden, items, targets = outputs["hidden"], outputs["items"], self._array(batch, "targets")
        where = targets >= FIRST
        if self.objective == "softmax":
            loss = full_softmax(hidden, items, targets, where=where, first=FIRST, chunk=self.chunk)
            return with_aux(loss, outputs)
        negatives = self._array(batch, "negatives")
        positive = jnp.einsum("btd,btd->bt", hidden, items[targets])
        if self.pooled:
            if negatives.ndim != 2:
                raise UserError("NextItem(pooled=True) pools one draw a row: set shared=True in UniformNegatives")
            negatives = negatives.reshape(1, 1, -1)
            negative = jnp.einsum("btd,nd->btn", hidden, items[negatives[0, 0]])
        elif negatives.ndim == 2:
            negative = jnp.einsum("btd,bnd->btn", hidden, items[negatives])
            negatives = negatives[:, None]
        else:
            negative = jnp.einsum("btd,btnd->btn", hidden, items[negatives])
        hits = jnp.broadcast_to((negatives == targets[..., None]) | (negatives < FIRST), negative.shape)
        if self.objective == "sampled_softmax":
            rates = self._rates(batch, shape=negative.shape)
            loss = sampled_softmax(positive, negative, where=where, hits=hits, **rates)
        else:
            loss = sampled_bce(positive, negative, where=where, hits=hits, beta=self._beta(negative, items))
        return with_aux(loss, outputs)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        """Scores of all ids, the lowest for those that are no item; what was seen, which serving leaves out; and the
        vector "user", whose products with the items the scores are."""
        scores = (outputs["last"] @ outputs["items"].T).astype(jnp.float32)
        scores = jnp.where((jnp.arange(scores.shape[1]) < FIRST)[None], HIDDEN, scores)
        seen = jnp.where(valid(batch, self.history), batch[self.history], 0)
        return {"scores": scores, "seen": seen, "user": outputs["last"]}

    def serve(self, predictions: Predictions) -> Predictions:
        scores = predictions["scores"]
        if self.mask_history:
            scores = jax.vmap(lambda row, ids: row.at[ids].set(HIDDEN))(scores, predictions["seen"])
        score, item = jax.lax.top_k(scores, min(self.top_k, scores.shape[1]))
        return {"item": item, "score": score}

    def _beta(self, negative: jax.Array, items: jax.Array) -> float:
        if self.objective == "bce":
            return 1.0
        return gbce_beta(negatives=negative.shape[-1], items=items.shape[0] - FIRST, calibration=self.calibration)

    def _rates(self, batch: Batch, *, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        if "negatives/logq" not in batch:
            return {}
        logq = batch["negatives/logq"]
        logq = logq.reshape(1, -1) if self.pooled else logq
        logq = jnp.broadcast_to(logq[:, None] if logq.ndim == 2 else logq, shape)
        return {"positive_logq": self._array(batch, "targets/logq"), "negative_logq": logq}

    def _array(self, batch: Batch, name: str) -> jax.Array:
        if name not in batch:
            raise UserError(
                f"NextItem(objective={self.objective!r}) needs {name!r} in the batch; "
                "add the transforms of data/transforms/history.py to loader.transforms"
            )
        return batch[name]
