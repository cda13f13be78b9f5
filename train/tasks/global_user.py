"""What a global user representation learns: masked events, classes of interest, and a language model's tags."""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
import optax

from data.errors import UserError
from data.features import FIRST
from modules.base import Batch, Outputs
from modules.layers.similarity import unit
from modules.losses.contrastive import softmax_contrastive
from modules.losses.items import HIDDEN, full_softmax, mean_where, sampled_softmax
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class GlobalUserLoss(Task):
    """L = L_masked + w_i BCE(interests) + w_a InfoNCE(person, tags).

    L_masked is over cosines. "sampled" takes all `negatives` of the batch, [b, n], as one set that every position
    shares: a product of matrices in place of a gather; a negative's logit is less log(q K), and one that is the target
    does not count. Tags whose cosine is above `alike` are no negatives of each other's people.
    """

    compares_rows = True

    objective: Literal["sampled", "full"] = "sampled"
    logq: bool = chz.field(default=True, doc="take the sampling rates back")
    scale: float = chz.field(default=20.0, doc="of the cosines, so that no token wins by its norm")
    interests: float = chz.field(default=0.5, doc="weight of the classes of interest; 0: not learned")
    align: float = chz.field(default=0.1, doc="weight of the tags; 0: not learned")
    temperature: float = chz.field(default=0.07, doc="of the tags' InfoNCE")
    alike: float = 0.9

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        logs: Logs = {"masked": self._masked(outputs, batch)}
        total = logs["masked"]
        if self.interests:
            bce = optax.sigmoid_binary_cross_entropy(outputs["interests"], _array(batch, "interests")).mean(axis=-1)
            logs["interests"] = mean_where(bce, where=_array(batch, "interests/known") > 0)
            total += self.interests * logs["interests"]
        if self.align:
            logs["align"] = softmax_contrastive(
                outputs["aligned"],
                outputs["tags"],
                scale=1 / self.temperature,
                where=_array(batch, "tagged") > 0,
                duplicate=self.alike,
            )
            total += self.align * logs["align"]
        total, named = with_aux(total, outputs)
        return total, {**named, **logs}

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        """Scores of all tokens as the next, the vector of the person, and the classes as scores by number + FIRST."""
        items = outputs["items"]
        scores = self.scale * unit(outputs["last"]) @ unit(items).T
        scores = jnp.where((jnp.arange(items.shape[0]) < FIRST)[None], HIDDEN, scores)
        classes = jnp.pad(outputs["interests"], ((0, 0), (FIRST, 0)), constant_values=HIDDEN)
        return {"scores": scores.astype(jnp.float32), "user": outputs["user"], "interests": classes}

    def serve(self, predictions: Predictions) -> Predictions:
        return {"user": predictions["user"], "interests": jax.nn.sigmoid(predictions["interests"][:, FIRST:])}

    def _masked(self, outputs: Outputs, batch: Batch) -> jax.Array:
        targets = _array(batch, "targets")
        hidden, items, where = unit(outputs["hidden"]), unit(outputs["items"]), targets >= FIRST
        if self.objective == "full":
            return full_softmax(self.scale * hidden, items, targets, where=where, first=FIRST)
        negatives, logq = _array(batch, "negatives").reshape(-1), _array(batch, "negatives/logq").reshape(-1)
        positive = self.scale * jnp.einsum("btd,btd->bt", hidden, items[targets])
        negative = self.scale * jnp.einsum("btd,nd->btn", hidden, items[negatives])
        hits = (negatives[None, None] == targets[..., None]) | (negatives < FIRST)[None, None]
        rates = jnp.broadcast_to(logq[None, None] + jnp.log(float(len(logq))), negative.shape)
        return sampled_softmax(positive, negative, where=where, hits=hits, negative_logq=rates if self.logq else None)


def _array(batch: Batch, name: str) -> jax.Array:
    if name not in batch:
        raise UserError(f"the task reads {name!r}, which the batch lacks; it has {', '.join(sorted(batch))}")
    return batch[name]
