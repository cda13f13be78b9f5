"""Ada-Retrieval: An Adaptive Multi-Round Retrieval Paradigm for Sequential Recommendations (Li et al., AAAI 2024).

A list is retrieved in rounds of k items, and each round sees what those before it found. The item adapter passes each
earlier list through a learned filter of frequencies and lets every item of the history attend to them,
x' = LN(x + softmax(x S^T / √d) S); the user adapter reads the user vectors of earlier rounds by a GRU,
u' = LN(u + W_2 relu(W_1 [u; g])). A round takes the k best by u' that neither the history nor an earlier round shows.
What is taken is not differentiated, the vectors of what was taken are.

In the first round there is nothing to adapt to, so that its list is the backbone's own.
"""

import math
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.dropout import Dropout
from modules.layers.embedding import FIRST
from modules.layers.gru import GRU
from modules.layers.layer_norm import LayerNorm
from modules.layers.mlp import linear
from modules.losses.items import HIDDEN
from modules.sequential.sasrec import SASRec


@chz.chz
class AdaRetrieval(ModelConfig):
    """Outputs "users" [b, rounds, d], "items" [v, d] and the list "item" [b, rounds k] with its "score"."""

    backbone: SASRec = chz.field(default_factory=SASRec, doc="any encoder of the history would do")
    rounds: int = 5
    per_round: int = chz.field(default=20, doc="k: items that a round adds to the list")
    adapters: Literal["both", "items", "users", "none"] = chz.field(
        default="both", doc="none: every round asks the same, and the list is that of one round of them all"
    )
    dropout: float = chz.field(default=0.2, doc="of what the adapters add")

    @chz.validate
    def _sizes(self) -> None:
        if self.rounds < 1 or self.per_round < 1:
            raise ValueError("rounds and per_round are at least 1")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "AdaRetrievalModel":
        return AdaRetrievalModel(self, features=features, rngs=rngs)


class AdaRetrievalModel(Model):
    def __init__(self, config: AdaRetrieval, *, features: Features, rngs: nnx.Rngs):
        self.config = config
        self.backbone = config.backbone.make(features, rngs=rngs)
        history = features[config.backbone.history]
        shown = config.rounds * config.per_round
        if shown + history.max_len > history.size - FIRST:
            raise ValueError(
                f"{config.rounds} rounds of {config.per_round} and a history of {history.max_len} are more than the "
                f"{history.size - FIRST} items that there are; lower rounds or per_round"
            )
        dim = config.backbone.dim
        items, users = (config.adapters in ("both", one) for one in ("items", "users"))
        self.items = ItemAdapter(config.per_round, dim=dim, dropout=config.dropout, rngs=rngs) if items else None
        self.users = UserAdapter(dim, dropout=config.dropout, rngs=rngs) if users else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        config, name = self.config, self.config.backbone.history
        past = self.backbone.item(batch[name]) * self.backbone.scale
        table = self.backbone.item.rows()
        rows, dim = past.shape[0], past.shape[2]
        row = jnp.arange(rows)[:, None]
        hidden = jnp.broadcast_to((jnp.arange(table.shape[0]) < FIRST)[None], (rows, table.shape[0]))
        hidden = hidden.at[row, jnp.where(valid(batch, name), batch[name], 0)].set(True)

        def one(before, now):
            hidden, shown, asked = before
            t, key = now
            drawn = None if rngs is None else nnx.Rngs(dropout=key)
            x = past
            if self.items is not None:
                adapted = self.items(past, shown=shown, count=t * config.per_round, rngs=drawn)
                x = jnp.where(t > 0, adapted.astype(past.dtype), past)
            _, last = self.backbone.encode(x, batch=batch, rngs=drawn)
            user = last
            if self.users is not None:
                user = jnp.where(t > 0, self.users(last, asked=asked, count=t, rngs=drawn).astype(last.dtype), last)
            logits = jax.lax.stop_gradient(user @ table.T)
            score, item = jax.lax.top_k(jnp.where(hidden, HIDDEN, logits), config.per_round)
            found = self.backbone.item(item) * self.backbone.scale
            if self.items is not None:
                found = self.items.filtered(found, rngs=drawn).astype(shown.dtype)
            shown = jax.lax.dynamic_update_slice_in_dim(shown, found, t * config.per_round, axis=1)
            asked = jax.lax.dynamic_update_slice_in_dim(asked, last[:, None], t, axis=1)
            return (hidden.at[row, item].set(True), shown, asked), (user, item, score)

        start = (
            hidden,
            jnp.zeros((rows, config.rounds * config.per_round, dim), past.dtype),
            jnp.zeros((rows, config.rounds, dim), past.dtype),
        )
        # One program for all rounds: they differ in what stands before them, not in what they do.
        key = jax.random.key(0) if rngs is None else rngs.dropout()
        _, found = jax.lax.scan(one, start, (jnp.arange(config.rounds), jax.random.split(key, config.rounds)))
        users, items, scores = (jnp.swapaxes(a, 0, 1) for a in found)
        return {
            "users": users,
            "items": table,
            "item": items.reshape(rows, -1),
            "score": scores.reshape(rows, -1),
        }


class ItemAdapter(nnx.Module):
    """The history as it looks beside what earlier rounds found."""

    def __init__(self, listed: int, *, dim: int, dropout: float, rngs: nnx.Rngs):
        shape = (listed // 2 + 1, dim, 2)  # real and imaginary part of each frequency's weight
        self.filter = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))
        self.list_norm, self.norm = LayerNorm(dim), LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        past: Float[Array, "b t d"],
        *,
        shown: Float[Array, "b s d"],
        count: Int[Array, ""],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t d"]:
        """`shown` holds the filtered lists of earlier rounds, `count` vectors in all."""
        there = (jnp.arange(shown.shape[1]) < count)[None, None]
        logits = jnp.einsum("btd,bsd->bts", past, shown) / math.sqrt(past.shape[-1])
        weights = jax.nn.softmax(jnp.where(there, logits, HIDDEN))
        return self.norm(past + self.dropout(jnp.einsum("bts,bsd->btd", weights, shown), rngs=rngs))

    def filtered(self, x: Float[Array, "b k d"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b k d"]:
        weights = self.filter[...].astype(jnp.float32)
        spectrum = jnp.fft.rfft(x.astype(jnp.float32), axis=1) * jax.lax.complex(weights[..., 0], weights[..., 1])[None]
        mixed = jnp.fft.irfft(spectrum, n=x.shape[1], axis=1).astype(x.dtype)
        return self.list_norm(x + self.dropout(mixed, rngs=rngs))


class UserAdapter(nnx.Module):
    """The user as who asked before."""

    def __init__(self, dim: int, *, dropout: float, rngs: nnx.Rngs):
        self.gru = GRU(dim, width=dim, rngs=rngs)
        self.wide = linear(2 * dim, outputs=2 * dim, rngs=rngs)
        self.narrow = linear(2 * dim, outputs=dim, rngs=rngs)
        self.norm = LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        user: Float[Array, "b d"],
        *,
        asked: Float[Array, "b r d"],
        count: Int[Array, ""],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b d"]:
        """`asked` holds the user vectors of the `count` rounds before."""
        before = jnp.broadcast_to((jnp.arange(asked.shape[1]) < count)[None], asked.shape[:2])
        _, state = self.gru(asked, mask=before)
        added = self.narrow(jax.nn.relu(self.wide(jnp.concatenate([user, state], axis=-1))))
        return self.norm(user + self.dropout(added, rngs=rngs))
