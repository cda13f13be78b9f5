"""To give what a listing lacks: its words or its colours, and the vector that stands for it."""

import chz
import jax
import jax.numpy as jnp
import optax

from data.errors import UserError
from modules.base import Batch, Outputs
from modules.content.generator import told
from train.tasks.base import Logs, Predictions, Task, with_aux


@chz.chz
class Generate(Task):
    """Cross-entropy of the next token, or squared error of the colours, and 1 - cosine of the vector."""

    text: str = chz.field(default="title", doc="array of the tokens to tell")
    patches: str = chz.field(default="patches", doc="array of the colours to paint")
    gone: str = chz.field(default="gone", doc="array of the vector that stands for what is missing")
    vector: float = chz.field(default=1.0, doc="weight of the vector")

    def predict(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {name: outputs[name] for name in ("said", "painted", "vector") if name in outputs}

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[jax.Array, Logs]:
        cosine = jnp.einsum("bd,bd->b", outputs["vector"], self._read(batch, self.gone))
        vector = 1 - cosine.mean()
        if "next" in outputs:
            content = self._telling(outputs["next"], batch)
        elif "painted" in outputs:
            content = jnp.square(outputs["painted"] - self._read(batch, self.patches)).mean()
        else:
            raise UserError("Generate needs a Captioner or a Painter, which tell or paint in training")
        total, logs = with_aux(content + self.vector * vector, outputs)
        return total, {**logs, "content": content, "vector": vector}

    def _telling(self, logits: jax.Array, batch: Batch) -> jax.Array:
        ids, length = self._read(batch, self.text), self._read(batch, f"{self.text}/length")
        targets = jnp.pad(ids, ((0, 0), (0, 1)))
        where = told(length, places=targets.shape[1])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.sum(loss * where) / where.sum()

    def _read(self, batch: Batch, name: str) -> jax.Array:
        if name not in batch:
            raise UserError(f"the task reads {name!r}, which the batch lacks; it has {', '.join(sorted(batch))}")
        return batch[name]
