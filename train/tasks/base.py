"""What outputs mean: the loss of a batch and the predictions that evaluation, export and serving share."""

from collections.abc import Mapping

import chz
import jax
import jax.numpy as jnp
import numpy as np

from modules.base import AUX_LOSS, Batch, Outputs

Logs = dict[str, jax.Array]
Predictions = dict[str, jax.Array]


@chz.chz
class Task:
    """`loss` may read labels; `predict` must not, since serving has none.

    A loss that compares rows is one loss of the whole batch, also where `optimizer.accumulate` divides the batch.
    """

    compares_rows = False

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        raise NotImplementedError(f"{type(self).__name__} does not define loss")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        """One row per example in every array."""
        raise NotImplementedError(f"{type(self).__name__} does not define predict")

    def serve(self, predictions: Predictions) -> Predictions:
        """What the exported program returns, where that is less than the evaluators need."""
        return predictions

    @property
    def reads_before_pass(self) -> tuple[str, ...]:
        """Predictions of all training rows that `before_pass` wants; of most tasks none, and there is no such pass."""
        return ()

    def before_pass(
        self, rows: Mapping[str, np.ndarray], *, stats: Mapping[str, np.ndarray], step: int
    ) -> dict[str, np.ndarray]:
        """New values of some running statistics, before each pass over the training rows."""
        raise NotImplementedError(f"{type(self).__name__} does not define before_pass")


def with_aux(loss: jax.Array, outputs: Outputs) -> tuple[jax.Array, Logs]:
    """Adds the model's own losses to the task's."""
    aux = {name: value for name, value in outputs.items() if name.startswith(AUX_LOSS)}
    total = loss + sum(aux.values(), start=jnp.zeros((), loss.dtype))
    return total, {"loss": total, **({"task_loss": loss} if aux else {}), **aux}
