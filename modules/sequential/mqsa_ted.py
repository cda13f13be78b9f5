"""MQSA-TED: Collaboration and Transition (Zhu et al., WSDM 2024, arXiv 2311.01056).

Two one-block causal encoders over one x = E[s] √d + P. The short query is SASRec's, Q = LN(x_t); the long one is less
moved by a single noisy item: Q = LN(mean of the newest L_q of x_1..x_t). Keys and values are x itself, the residual is
added to Q. Their logits are mixed, α h_short E^T + (1 - α) h_long E^T, which is one product with the mixed states.

The other half, the distillation of item-to-item transitions into E, is a loss: `train.tasks.transition_aware`. It
compares "inputs", the vectors E[s] √d after dropout.
"""

import math

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, history_of_ids, valid
from modules.layers.attention import MultiHeadAttention, visible
from modules.layers.dropout import Dropout
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.positions import Positions, last_valid
from modules.layers.tokens import TokenEmbedding


@chz.chz
class MQSATED(ModelConfig):
    dim: int = 64
    alpha: float = chz.field(default=0.5, doc="share of the short query; 1: it alone, 0: the long one alone")
    newest: int = chz.field(default=3, doc="L_q: items that a long query is the mean of")
    heads: int = 1
    dropout: float = 0.2
    history: str = chz.field(default="history", doc="sequence of item ids")

    @chz.validate
    def _check(self) -> None:
        if not 0 <= self.alpha <= 1 or self.newest < 1:
            raise ValueError(f"alpha is {self.alpha} and newest {self.newest}; give a share and at least one item")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "MQSATEDModel":
        return MQSATEDModel(self, features=features, rngs=rngs)


class MQSATEDModel(Model):
    def __init__(self, config: MQSATED, *, features: Features, rngs: nnx.Rngs):
        history = history_of_ids(features, config.history, model="MQSA-TED")
        self.history, self.alpha, self.newest = config.history, config.alpha, config.newest
        self.scale = math.sqrt(config.dim)
        self.item = TokenEmbedding(history.size, dim=config.dim, rngs=rngs)
        self.positions = Positions(history.max_len, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)

        def encoder(there: bool) -> QueryBlock | None:
            return QueryBlock(config.dim, heads=config.heads, dropout=config.dropout, rngs=rngs) if there else None

        self.short, self.long = encoder(config.alpha > 0), encoder(config.alpha < 1)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """hidden [b,t,d] by position, last [b,d], items [v,d], inputs [b,t,d]; zeros where there is no item."""
        keep = valid(batch, self.history)
        taken = self.item(batch[self.history]) * self.scale
        x = jnp.where(keep[..., None], self.dropout(self.positions(taken), rngs=rngs), 0)
        mask = visible(keep)
        hidden = jnp.zeros_like(x)
        if self.short is not None:
            hidden = self.alpha * self.short(x, query=x, mask=mask, rngs=rngs)
        if self.long is not None:
            query = newest_mean(x, where=keep, count=self.newest)
            hidden = hidden + (1 - self.alpha) * self.long(x, query=query, mask=mask, rngs=rngs)
        hidden = jnp.where(keep[..., None], hidden, 0)
        return {
            "hidden": hidden,
            "last": last_valid(hidden, length=batch[f"{self.history}/length"]),
            "items": self.item.rows(),
            "inputs": self.dropout(taken, rngs=rngs),
        }


class QueryBlock(nnx.Module):
    """SASRec's own block with a query of its own: the residual of attention is the normalised query."""

    def __init__(self, dim: int, *, heads: int, dropout: float, rngs: nnx.Rngs):
        self.norm_query = LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads=heads, rngs=rngs)
        self.norm_mlp = LayerNorm(dim)
        self.up, self.down = Linear(dim, dim, rngs=rngs), Linear(dim, dim, rngs=rngs)
        self.last = LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        query: Float[Array, "b t d"],
        mask: Bool[Array, "b t t"],
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "b t d"]:
        query = self.norm_query(query)
        y = self.norm_mlp(query + self.dropout(self.attention(query, memory=x, mask=mask, causal=True), rngs=rngs))
        inner = self.dropout(jax.nn.relu(self.up(y)), rngs=rngs)
        return self.last(y + self.dropout(self.down(inner), rngs=rngs))


def newest_mean(x: Float[Array, "b t d"], *, where: Bool[Array, "b t"], count: int) -> Float[Array, "b t d"]:
    """At each position the mean of the newest `count` vectors up to it, of those that there are."""
    there = where[..., None].astype(x.dtype)

    def sums(y):
        back = [jnp.pad(y, ((0, 0), (n, 0), (0, 0)))[:, : y.shape[1]] for n in range(min(count, y.shape[1]))]
        return sum(back[1:], start=back[0])

    return sums(x * there) / jnp.maximum(sums(there), 1)
