"""A recurrent baseline of next-item models: GRU4Rec, Session-based Recommendations with Recurrent Neural Networks.

Hidasi et al., ICLR 2016 (arXiv 1511.06939): gated recurrent units read one item after another, and the state after
each scores the next item. Where the paper has one-hot inputs and an output layer, one table of vectors feeds the input
and the scores, as in SASRec, so that the two differ in what mixes the history alone. The loss is the task's choice.
"""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, history_of_ids, valid
from modules.layers.dropout import Dropout
from modules.layers.gru import GRU
from modules.layers.mlp import linear
from modules.layers.positions import last_valid
from modules.layers.tokens import TokenEmbedding


@chz.chz
class GRU4Rec(ModelConfig):
    dim: int = 64
    width: int = chz.field(default=128, doc="of the recurrent state")
    depth: int = chz.field(default=1, doc="recurrent layers, each reading the states of the one before")
    dropout: float = 0.2
    history: str = chz.field(default="history", doc="sequence of item ids")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "GRU4RecModel":
        return GRU4RecModel(self, features=features, rngs=rngs)


class GRU4RecModel(Model):
    def __init__(self, config: GRU4Rec, *, features: Features, rngs: nnx.Rngs):
        history = history_of_ids(features, config.history, model="GRU4Rec")
        self.history = config.history
        self.item = TokenEmbedding(history.size, dim=config.dim, std=config.dim**-0.5, rngs=rngs)
        widths = (config.dim, *(config.width for _ in range(config.depth)))
        self.layers = nnx.List([GRU(inputs, width=config.width, rngs=rngs) for inputs in widths[: config.depth]])
        self.out = linear(config.width, outputs=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """hidden [b,t,d] by position, last [b,d] at the newest item, items [v,d]; zeros where there is no item."""
        hidden = self.encode(batch, rngs=rngs)
        last = last_valid(hidden, length=batch[f"{self.history}/length"])
        return {"hidden": hidden, "last": last, "items": self.item.rows()}

    def encode(self, batch: Batch, *, rngs: nnx.Rngs | None) -> Float[Array, "b t d"]:
        keep = valid(batch, self.history)
        x = self.item(batch[self.history])
        for layer in self.layers:
            x, _ = layer(self.dropout(x, rngs=rngs), mask=keep)
        return jnp.where(keep[..., None], self.out(self.dropout(x, rngs=rngs)), 0)
