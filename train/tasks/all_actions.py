"""Every state of a person foretells every later action: LEARN's loss, after PinnerFormer's."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from data.features import FIRST
from data.transforms.all_actions import POSITIONS, TARGETS
from modules.base import Batch, Outputs
from modules.losses.all_actions import all_actions
from modules.losses.contrastive import scale_of
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class AllActionsLoss(Task):
    """States at `positions` of the row against its `targets`, with the targets of all other rows as negatives."""

    compares_rows = True

    scale: float = chz.field(default=20.0, doc="of the cosine, 1 / temperature, of models that do not learn theirs")
    same: bool = chz.field(default=True, doc="an item is no negative of itself where somebody else took it")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        for name in (TARGETS, POSITIONS):
            if name not in batch:
                raise UserError(f"AllActionsLoss reads {name!r}: add AllActions to loader.transforms")
        place, ids = batch[POSITIONS], batch[TARGETS]
        scale = scale_of(outputs["log_scale"]) if "log_scale" in outputs else jnp.asarray(self.scale)
        states = jnp.take_along_axis(outputs["hidden"], jnp.maximum(place, 0)[:, :, None], axis=1)
        loss = all_actions(
            states,
            outputs["targets"],
            scale=scale,
            known_states=place >= 0,
            known_targets=ids >= FIRST,
            ids=ids if self.same else None,
        )
        total, logs = with_aux(loss, outputs)
        return total, {**logs, "scale": scale}

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {side: outputs[side] for side in ("query", "item") if side in outputs}
