"""Retrieval in rounds: one loss of the target for the user vector of each round, and the list that they make."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from train.tasks.base import Logs, Predictions
from train.tasks.next_item import NextItem


@chz.chz
class AdaptiveRounds(NextItem):
    """Σ_t λ^t L(u_t), t = 0, 1, ..., with any loss of `NextItem` for the one item `target` after the history.

    The paper has the binary loss with 100 sampled negatives. Predictions are the list itself, the best round first.
    """

    decay: float = chz.field(default=0.3, doc="λ: weight of a round as a multiple of the one before")
    target: str = chz.field(default="target", doc="label with the item after the history")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.target not in batch:
            raise UserError(f"AdaptiveRounds needs {self.target!r}: add RandomPrefix to loader.transforms")
        one = {**batch, "targets": batch[self.target][:, None]}
        users, logs = outputs["users"], {}
        total = jnp.zeros(())
        for t in range(users.shape[1]):
            part, _ = super().loss({"hidden": users[:, t : t + 1], "items": outputs["items"]}, one)
            total = total + self.decay**t * part
            logs[f"round_{t}_loss"] = part
        return total, {"loss": total, **logs}

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {"item": outputs["item"], "score": outputs["score"]}

    def serve(self, predictions: Predictions) -> Predictions:
        return predictions
