"""Notes that are found by notes taken with them, and whose hashtags are told (NoteLLM)."""

import chz
import jax
import jax.numpy as jnp
import optax

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.losses.contrastive import scale_of, softmax_contrastive
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class Notes(Task):
    """(L_cl + a L_gen) / (1 + a): InfoNCE of the pairs in the batch, and cross-entropy of both notes' hashtags."""

    compares_rows = True

    telling: float = chz.field(default=0.01, doc="a, the weight of the hashtags")
    contrast: float = chz.field(default=1.0, doc="weight of InfoNCE; 0: hashtags alone")
    topics: tuple[str, str] = chz.field(default=("topics", "other_topics"), doc="labels of the note and of the other")
    label: str | None = chz.field(default="sought", doc="id of the other note: one that stands there twice is itself")

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        for name in (*self.topics, *([self.label] if self.label else [])):
            if name not in batch:
                raise UserError(f"Notes reads {name!r}, which the batch lacks; it has {', '.join(sorted(batch))}")
        topics = jnp.concatenate([batch[name] for name in self.topics])
        telling = optax.softmax_cross_entropy_with_integer_labels(outputs["next"], topics).mean()
        scale = scale_of(outputs["log_scale"])
        labels = None if self.label is None else batch[self.label]
        contrast = softmax_contrastive(outputs["query"], outputs["item"], scale=scale, labels=labels)
        total = (self.contrast * contrast + self.telling * telling) / (1 + self.telling)
        total, logs = with_aux(total, outputs)
        return total, {**logs, "contrast": contrast, "telling": telling, "scale": scale}

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {name: outputs[name] for name in ("query", "item", "told") if name in outputs}
