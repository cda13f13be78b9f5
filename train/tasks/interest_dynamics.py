"""Next items of several moments of a history: those that windows of it end in, and the one to come."""

import chz
import jax
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch, Outputs
from train.tasks.base import Logs
from train.tasks.next_item import NextItem


@chz.chz
class InterestDynamics(NextItem):
    """Any loss of `NextItem`, mean over the windows that ask; what the newest asks for is the label `target`."""

    target: str = chz.field(default="target", doc="label with the item after the history")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        if self.target not in batch:
            raise UserError(f"InterestDynamics needs {self.target!r}: add RandomPrefix to loader.transforms")
        if "asked" not in outputs:
            raise UserError("InterestDynamics reads the windows of IDNP: set model=modules.sequential.idnp:IDNP")
        targets = jnp.concatenate([outputs["asked"][:, :-1], batch[self.target][:, None]], axis=1)
        return super().loss(outputs, {**batch, "targets": targets})
