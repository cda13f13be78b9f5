"""How far a user goes: steps of which each needs the one before."""

import chz
import jax
import jax.numpy as jnp
import optax

from modules.base import Batch, Outputs
from modules.losses.ordinal import ordinal_nll
from train.tasks.base import Logs, Predictions, Task, with_aux
from train.tasks.multi_task import LOGIT, scores


@chz.chz
class Ordinal(Task):
    """-log of the probability of exactly the steps taken, from logits of reaching each; predicts `score/<step>`."""

    steps: tuple[str, ...] = chz.field(
        default=("click", "cart", "purchase"), doc="labels from the first step to the last, and names of the logits"
    )
    linked: bool = chz.field(
        default=True, doc="one likelihood of all steps; False: a binary cross-entropy for each, as if independent"
    )

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        missing = [step for step in self.steps if LOGIT + step not in outputs]
        if missing:
            raise KeyError(f"the model has no logit of step {missing[0]!r}; give it the steps of the task")
        logits = jnp.stack([outputs[LOGIT + step].astype(jnp.float32) for step in self.steps], axis=1)
        taken = jnp.stack([batch[step].astype(jnp.float32) for step in self.steps], axis=1)
        if not self.linked:
            return with_aux(optax.sigmoid_binary_cross_entropy(logits, taken).mean(axis=0).sum(), outputs)
        # A step without the one before counts as not taken.
        reached = jnp.cumprod(taken, axis=1).sum(axis=1).astype(jnp.int32)
        return with_aux(ordinal_nll(-logits, reached).mean(), outputs)

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return scores(outputs)
