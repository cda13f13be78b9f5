"""SASRec: Self-Attentive Sequential Recommendation (Kang & McAuley, ICDM 2018, arXiv 1808.09781).

A causal transformer over a user's items; a position's state scores every item by its product with the same
table that feeds the input (eq. 6). The original adds its residual to the normalised query; the plain pre- and
post-norm blocks here measure equal or better. Which loss trains it is the task's choice.
"""

import math

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, history_of_ids, valid
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.positions import Positions, last_valid
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Norm, Transformer


@chz.chz
class SASRec(ModelConfig):
    dim: int = 64
    depth: int = chz.field(default=2, doc="blocks")
    heads: int = 1
    expand: int = chz.field(default=1, doc="hidden width of a block's MLP, as a multiple of dim")
    dropout: float = 0.2
    norm: Norm = chz.field(default="pre", doc="layer norm before (pre) or after (post) each residual branch")
    history: str = chz.field(default="history", doc="sequence of item ids")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "SASRecModel":
        return SASRecModel(self, features=features, rngs=rngs)


class SASRecModel(Model):
    def __init__(self, config: SASRec, *, features: Features, rngs: nnx.Rngs):
        history = history_of_ids(features, config.history, model="SASRec")
        self.history = config.history
        self.scale = math.sqrt(config.dim)
        self.item = TokenEmbedding(history.size, dim=config.dim, rngs=rngs)
        self.positions = Positions(history.max_len, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            config.dim,
            depth=config.depth,
            heads=config.heads,
            expand=config.expand,
            dropout=config.dropout,
            norm=config.norm,
            rngs=rngs,
        )

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """hidden [b,t,d] by position, last [b,d] at the newest item, items [v,d]; zeros where there is no item."""
        x = self.item(batch[self.history]) * self.scale
        hidden, last = self.encode(x, batch=batch, rngs=rngs)
        return {"hidden": hidden, "last": last, "items": self.item.rows()}

    def encode(
        self, x: Float[Array, "b t d"], *, batch: Batch, causal: bool = True, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b d"]]:
        """States by position and at the newest item, from the scaled vectors of the history."""
        keep = valid(batch, self.history)
        x = self.dropout(self.positions(x), rngs=rngs)  # eq. 1
        hidden = self.transformer(x, mask=visible(keep), causal=causal, rngs=rngs)
        hidden = jnp.where(keep[..., None], hidden, 0)
        return hidden, last_valid(hidden, length=batch[f"{self.history}/length"])
