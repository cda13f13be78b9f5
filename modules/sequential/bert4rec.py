"""BERT4Rec: sequential recommendation with bidirectional encoder representations (Sun et al., CIKM 2019).

Items under a mask are told from those on both sides (section 3.6, Cloze): E + P, layer norm, post-norm blocks that look
both ways, and P(v) = softmax(GELU(h W + b) E^T + b_v) with the table of the input (eq. 7). To predict, a mask stands
after the newest item. `data.transforms.sequences.Cloze` puts the masks; its mask is the last row of the table.

A history without a mask gets the one of prediction, so that training, evaluation and serving read one forward pass.
Attention weights have no dropout of their own here.
"""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.base import Batch, Features, Model, ModelConfig, Outputs, history_of_ids
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.gelu import gelu
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.positions import Positions, last_valid
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


@chz.chz
class BERT4Rec(ModelConfig):
    dim: int = 64
    depth: int = chz.field(default=2, doc="blocks")
    heads: int = 2
    expand: int = chz.field(default=4, doc="hidden width of a block's MLP, as a multiple of dim")
    dropout: float = 0.2
    projection: bool = chz.field(default=True, doc="GELU(h W + b) before the table and a bias of each item after it")
    history: str = chz.field(default="history", doc="sequence of item ids; the last row of its table is the mask")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "BERT4RecModel":
        return BERT4RecModel(self, features=features, rngs=rngs)


class BERT4RecModel(Model):
    def __init__(self, config: BERT4Rec, *, features: Features, rngs: nnx.Rngs):
        history = history_of_ids(features, config.history, model="BERT4Rec")
        self.history = config.history
        self.mask = history.size - 1
        self.item = TokenEmbedding(history.size, dim=config.dim, rngs=rngs)
        self.positions = Positions(history.max_len, dim=config.dim, rngs=rngs)
        self.norm = LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            config.dim,
            depth=config.depth,
            heads=config.heads,
            expand=config.expand,
            dropout=config.dropout,
            norm="post",
            rngs=rngs,
        )
        self.project = Linear(config.dim, config.dim, rngs=rngs) if config.projection else None
        self.bias = nnx.Param(jnp.zeros((self.mask, 1))) if config.projection else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """hidden [b,t,e] by position, last [b,e] at the newest one, items [v,e] without the mask; zeros in padding."""
        ids, length = self._asking(batch[self.history], batch[f"{self.history}/length"])
        keep = jnp.arange(ids.shape[1])[None] < length[:, None]
        x = self.dropout(self.norm(self.positions(self.item(ids))), rngs=rngs)
        states = self.transformer(x, mask=visible(keep), rngs=rngs)
        hidden = jnp.where(keep[..., None], self._told(states), 0)
        items = self.item.rows()[: self.mask]
        if self.bias is not None:
            items = jnp.concatenate([items, self.bias[...].astype(items.dtype)], axis=1)
        return {"hidden": hidden, "last": last_valid(hidden, length=length), "items": items}

    def _asking(self, ids: Int[Array, "b t"], length: Int[Array, "b"]) -> tuple[Int[Array, "b t"], Int[Array, "b"]]:
        """Histories with a mask as they are, others with one after the newest item; a full one gives up its oldest."""
        place, width = jnp.arange(ids.shape[1])[None], ids.shape[1]
        asks = jnp.any((ids == self.mask) & (place < length[:, None]), axis=1)
        at = jnp.minimum(length, width - 1)
        room = jnp.where((length == width)[:, None], jnp.roll(ids, -1, axis=1), ids)
        longer = jnp.where(place == at[:, None], self.mask, room)
        return jnp.where(asks[:, None], ids, longer), jnp.where(asks, length, at + 1)

    def _told(self, states: Float[Array, "b t d"]) -> Float[Array, "b t e"]:
        """Eq. 7 up to the product with the items, whose biases are one column more, met by a 1."""
        if self.project is None:
            return states
        told = gelu(self.project(states), kind="tanh")
        return jnp.concatenate([told, jnp.ones_like(told[..., :1])], axis=-1)
