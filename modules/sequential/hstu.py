"""HSTU: Hierarchical Sequential Transduction Units, the block of generative recommenders.

Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations", ICML 2024 (arXiv 2402.17152). A block has no softmax and no separate MLP:

    U, V, Q, K = split(silu(f_1(norm(X))))                    (eq. 1)
    A V        = silu(Q K^T + rab) V / n                      (eq. 2)
    Y          = X + f_2(norm(A V) * U)                       (eq. 3)

Attention weights do not sum to one, so that how much of a history agrees is seen. rab is a learned bias by how many
positions apart two items are and, where the source has times, by a logarithmic bucket of the time between them. n is
the number of places, as in the authors' code. Only the block is here, between SASRec's table and its scores.
"""

import math
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.base import Batch, Features, Model, ModelConfig, Outputs, history_of_ids, valid
from modules.layers.attention import HIDDEN, visible
from modules.layers.dropout import Dropout
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.positions import Positions, last_valid
from modules.layers.tokens import TokenEmbedding

BUCKETS = 64  # of log2 of a gap, in quarters: up to 65,536 units of time


@chz.chz
class HSTU(ModelConfig):
    dim: int = 64
    depth: int = chz.field(default=2, doc="blocks")
    heads: int = 1
    dropout: float = 0.2
    bias: bool = chz.field(default=True, doc="learned bias by how far apart two items are")
    times: str | None = chz.field(default=None, doc="sequence of numbers: when each item was, in any unit")
    weighing: Literal["silu", "softmax"] = chz.field(default="silu", doc="what makes weights of the products")
    history: str = chz.field(default="history", doc="sequence of item ids")

    @chz.validate
    def _divides(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} does not divide into {self.heads} heads")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "HSTUModel":
        return HSTUModel(self, features=features, rngs=rngs)


class HSTUModel(Model):
    def __init__(self, config: HSTU, *, features: Features, rngs: nnx.Rngs):
        history = history_of_ids(features, config.history, model="HSTU")
        if config.times is not None and features[config.times].max_len != history.max_len:
            raise ValueError(f"{config.times!r} has {features[config.times].max_len} places, the history others")
        self.history, self.times = config.history, config.times
        self.scale = math.sqrt(config.dim)
        self.item = TokenEmbedding(history.size, dim=config.dim, rngs=rngs)
        self.positions = Positions(history.max_len, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.blocks = nnx.List([Block(config, length=history.max_len, rngs=rngs) for _ in range(config.depth)])
        self.last = LayerNorm(config.dim)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """hidden [b,t,d] by position, last [b,d] at the newest item, items [v,d]; zeros where there is no item."""
        keep = valid(batch, self.history)
        x = self.dropout(self.positions(self.item(batch[self.history]) * self.scale), rngs=rngs)
        gaps = None if self.times is None else gap_buckets(batch[self.times])
        for block in self.blocks:
            x = block(x, mask=visible(keep, causal=True), gaps=gaps, rngs=rngs)
        hidden = jnp.where(keep[..., None], self.last(x), 0)
        last = last_valid(hidden, length=batch[f"{self.history}/length"])
        return {"hidden": hidden, "last": last, "items": self.item.rows()}


class Block(nnx.Module):
    def __init__(self, config: HSTU, *, length: int, rngs: nnx.Rngs):
        dim = config.dim
        self.heads, self.length, self.weighing = config.heads, length, config.weighing
        self.norm, self.norm_mixed = LayerNorm(dim), LayerNorm(dim)
        self.uvqk = Linear(dim, 4 * dim, rngs=rngs)
        self.out = Linear(dim, dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.by_position = nnx.Param(jnp.zeros(length)) if config.bias else None
        self.by_time = nnx.Param(jnp.zeros(BUCKETS)) if config.times is not None else None

    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        mask: Bool[Array, "b t t"],
        gaps: Int[Array, "b t t"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t d"]:
        u, v, q, k = jnp.split(jax.nn.silu(self.uvqk(self.norm(x))), 4, axis=-1)  # eq. 1
        q, k, v = (a.reshape(*a.shape[:2], self.heads, -1) for a in (q, k, v))
        logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) + self.bias(x.shape[1], gaps=gaps, dtype=x.dtype)
        mixed = jnp.einsum("bhqk,bkhe->bqhe", self.weights(logits, mask=mask[:, None]), v)  # eq. 2
        y = self.norm_mixed(mixed.reshape(x.shape)) * u
        return x + self.dropout(self.out(y), rngs=rngs)  # eq. 3

    def bias(self, width: int, *, gaps: Int[Array, "b t t"] | None, dtype) -> Float[Array, "b 1 t t"]:
        total = jnp.zeros((1, 1, width, width), dtype)
        if self.by_position is not None:
            apart = jnp.abs(jnp.arange(width)[:, None] - jnp.arange(width)[None])
            total = total + self.by_position[...][apart][None, None].astype(dtype)
        if self.by_time is not None and gaps is not None:
            total = total + self.by_time[...][gaps][:, None].astype(dtype)
        return total

    def weights(self, logits: Float[Array, "b h t t"], *, mask: Bool[Array, "b 1 t t"]) -> Float[Array, "b h t t"]:
        if self.weighing == "silu":
            # Places that exist, not those of this batch: padding must not change what a row gets.
            return jnp.where(mask, jax.nn.silu(logits), 0) / self.length
        return jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, HIDDEN).astype(jnp.float32)), 0.0)


def gap_buckets(times: Float[Array, "b t"]) -> Int[Array, "b t t"]:
    """Quarters of log2 of the time between each two items; less than one unit is one, as are equal times."""
    gap = jnp.maximum(jnp.abs(times[:, :, None] - times[:, None, :]).astype(jnp.float32), 1.0)
    return jnp.clip((4 * jnp.log2(gap)).astype(jnp.int32), 0, BUCKETS - 1)
