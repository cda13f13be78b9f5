"""Next items, and beside them what usually follows an item, distilled into its vector."""

import chz
import jax
import jax.numpy as jnp

from data.features import FIRST
from data.transforms.transitions import NEXT, PLACE, STRENGTH
from modules.base import Batch, Outputs
from modules.losses.transitions import transition_distillation
from train.tasks.base import Logs
from train.tasks.next_item import NextItem


@chz.chz
class TransitionAware(NextItem):
    """L + λ L_kd (Zhu et al., WSDM 2024): of items drawn from the histories, the catalogue's scores by "inputs" x E^T
    against the successors that `data.transforms.transitions.Transitions` counted. Items that nothing followed are left
    out."""

    distil: float = chz.field(default=0.1, doc="λ; 0: the transitions are not read")
    teacher_temperature: float = chz.field(default=0.1, doc="τ, of the teacher and of the student")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        main, logs = super().loss(outputs, batch)
        if not self.distil:
            return main, logs
        place, successors = self._array(batch, PLACE), self._array(batch, NEXT)
        student = jnp.take_along_axis(outputs["inputs"], place[..., None], axis=1)
        taught = transition_distillation(
            student.reshape(-1, student.shape[-1]),
            outputs["items"],
            successors=successors.reshape(-1, successors.shape[-1]),
            strengths=self._array(batch, STRENGTH).reshape(-1, successors.shape[-1]),
            where=(successors[..., 0] >= FIRST).reshape(-1),
            temperature=self.teacher_temperature,
            first=FIRST,
        )
        total = main + self.distil * taught
        return total, {**logs, "loss": total, "next_loss": main, "transition_loss": taught}
