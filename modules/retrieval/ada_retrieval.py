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
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.dropout import Dropout
from modules.layers.embedding import FIRST
from modules.layers.gru import GRU
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
        options = {"dropout": config.dropout, "rngs": rngs}
        self.items = ItemAdapter(config.per_round, dim=dim, **options) if config.adapters in ("both", "items") else None
        self.users = UserAdapter(dim, **options) if config.adapters in ("both", "users") else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        name = self.config.backbone.history
        past = self.backbone.item(batch[name]) * self.backbone.scale
        table = self.backbone.item.rows()
        row = jnp.arange(past.shape[0])[:, None]
        taken = jnp.broadcast_to((jnp.arange(table.shape[0]) < FIRST)[None], (past.shape[0], table.shape[0]))
        taken = taken.at[row, jnp.where(valid(batch, name), batch[name], 0)].set(True)
        asked, users, lists, scores, found = [], [], [], [], []
        for _ in range(self.config.rounds):
            x = self.items(past, lists=lists, rngs=rngs) if self.items is not None and lists else past
            _, last = self.backbone.encode(x, batch=batch, rngs=rngs)
            user = self.users(last, before=asked, rngs=rngs) if self.users is not None and asked else last
            logits = jax.lax.stop_gradient(user @ table.T)
            score, item = jax.lax.top_k(jnp.where(taken, HIDDEN, logits), self.config.per_round)
            taken = taken.at[row, item].set(True)
            lists.append(self.backbone.item(item) * self.backbone.scale)
            asked.append(last)
            users.append(user)
            scores.append(score)
            found.append(item)
        return {
            "users": jnp.stack(users, axis=1),
            "items": table,
            "item": jnp.concatenate(found, axis=1),
            "score": jnp.concatenate(scores, axis=1),
        }


class ItemAdapter(nnx.Module):
    """The history as it looks beside what earlier rounds found."""

    def __init__(self, listed: int, *, dim: int, dropout: float, rngs: nnx.Rngs):
        shape = (listed // 2 + 1, dim, 2)  # real and imaginary part of each frequency's weight
        self.filter = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))
        self.list_norm, self.norm = nnx.LayerNorm(dim, rngs=rngs), nnx.LayerNorm(dim, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self, past: Float[Array, "b t d"], *, lists: list[Float[Array, "b k d"]], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        shown = jnp.concatenate([self.filtered(x, rngs=rngs) for x in lists], axis=1)
        weights = jax.nn.softmax(jnp.einsum("btd,bsd->bts", past, shown) / math.sqrt(past.shape[-1]))
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
        self.norm = nnx.LayerNorm(dim, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self, user: Float[Array, "b d"], *, before: list[Float[Array, "b d"]], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        asked = jnp.stack(before, axis=1)
        _, state = self.gru(asked, mask=jnp.ones(asked.shape[:2], bool))
        added = self.narrow(jax.nn.relu(self.wide(jnp.concatenate([user, state], axis=-1))))
        return self.norm(user + self.dropout(added, rngs=rngs))
