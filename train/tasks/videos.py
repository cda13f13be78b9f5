"""An image-text task whose model also has videos."""

import chz
import jax

from data.errors import UserError
from modules.base import Batch, Outputs
from train.tasks.base import Logs, Predictions
from train.tasks.contrastive import Contrastive


@chz.chz
class VideoContrastive(Contrastive):
    """Title against picture; and with a weight of `frames` title against video, which the paper does not train."""

    frames: float = chz.field(default=0.0, doc="weight of titles against videos")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        found = super().predict(outputs, batch)
        return {**found, "video": outputs["video"]} if "video" in outputs else found

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        total, logs = super().loss(outputs, batch)
        if not self.frames:
            return total, logs
        if "video" not in outputs:
            raise UserError("task.frames is a weight of videos, which the training rows lack: set it to 0")
        plain = {name: value for name, value in outputs.items() if not name.startswith("aux_")}
        moving, _ = super().loss({**plain, "item": outputs["video"]}, batch)
        total = total + self.frames * moving
        return total, {**logs, "loss": total, "video_loss": moving}
