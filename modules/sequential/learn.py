"""LEARN: Knowledge Adaptation from Large Language Model to Recommendation (Jia et al., AAAI 2025, arXiv 2405.03988).

The preference alignment (PAL, in version 1 PCH) of frozen vectors of texts, which a language model made offline (CEX,
CEG): a linear adaptor, a causal transformer without positions, a linear layer, unit length. Both towers are this one
module: a person is the state at the newest action, an item is a history of length one. Which states are to foretell
which actions is the task's and the transform's choice.
"""

from typing import Literal

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.linear import Linear
from modules.layers.positions import last_valid
from modules.layers.similarity import Temperature, unit
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer

Reads = Literal["text", "ids"]
ItemTower = Literal["shared", "across", "raw"]


@chz.chz
class LEARN(ModelConfig):
    dim: int = chz.field(default=64, doc="of the transformer")
    out: int = chz.field(default=64, doc="of both vectors")
    depth: int = 1
    heads: int = 2
    dropout: float = 0.1
    reads: Reads = chz.field(default="text", doc="ids: a learned row for each item in place of its text, to compare")
    item: ItemTower = chz.field(
        default="shared",
        doc="the paper's three item towers: one item at a time; in training, all targets of a person together; the "
        "text's vector as it came, of which the user tower's is then a copy in width",
    )
    scale: float | None = chz.field(
        default=5.0,
        doc="of the cosine, learned from here; None: the task's fixed one. From the paper's 20 a small batch first "
        "learns to make all vectors alike, and does not come back",
    )
    history: str = "history"
    vectors: str = chz.field(default="history_content", doc="sequence of the texts' vectors of the history")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "LEARNModel":
        return LEARNModel(self, features=features, rngs=rngs)


class LEARNModel(Model):
    """ "query" [b, d] of the person, "item" [b, d] of a listing; in training "hidden" [b, t, d] and "targets"."""

    def __init__(self, config: LEARN, *, features: Features, rngs: nnx.Rngs):
        self.reads, self.tower = config.reads, config.item
        self.history, self.vectors = config.history, config.vectors
        source = features[config.vectors if config.reads == "text" else config.history]
        if source.kind != "sequence" or (config.reads == "text") != (len(source.shape) == 2):
            raise ValueError(f"LEARN reads a sequence of {config.reads}, and {source.name!r} is none")
        dim, size = config.dim, source.shape[-1]
        if config.item == "raw" and config.reads != "text":
            raise ValueError("LEARN(item='raw') is the text's own vector; there is none where it reads ids")
        if config.reads == "text":
            self.adaptor = Linear(size, dim, rngs=rngs)
        else:
            self.table = TokenEmbedding(source.size, dim=dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            dim, depth=config.depth, heads=config.heads, dropout=config.dropout, norm="post", rngs=rngs
        )
        self.project = Linear(dim, size if config.item == "raw" else config.out, rngs=rngs)
        self.temperature = None if config.scale is None else Temperature(config.scale)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs: Outputs = {} if self.temperature is None else self.temperature()
        past, targets, item = self._names()
        if past in batch:
            # Padding is where both end, and the history's own length says so also where its ids are not read.
            where = valid(batch, past)
            hidden = self.align(batch[past], where=where, rngs=rngs)
            outputs["query"] = last_valid(hidden, length=batch[f"{past}/length"])
            outputs["hidden"] = hidden
        if targets in batch:
            outputs["targets"] = self._items(batch[targets], batch=batch, rngs=rngs)
        if item in batch:
            outputs["item"] = self._items(batch[item][:, None], batch=None, rngs=rngs)[:, 0]
        return outputs

    def align(
        self, x: Float[Array, "b t c"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        """PAL: a state for each position, from it and those before it; zeros where there is nothing."""
        x = self.adaptor(x) if self.reads == "text" else self.table(x)
        x = self.transformer(self.dropout(x, rngs=rngs), mask=visible(where), causal=True, rngs=rngs)
        return jnp.where(where[..., None], unit(self.project(x)), 0)

    def _items(self, x: Float[Array, "b t c"], *, batch: Batch | None, rngs: nnx.Rngs | None) -> Float[Array, "b t d"]:
        """Each by itself, but for the targets of tower "across"."""
        if self.tower == "raw":
            return unit(x)
        if self.tower == "across" and batch is not None:
            return self.align(x, where=batch["targets"] > 0, rngs=rngs)
        alone = x.reshape(-1, 1, *x.shape[2:])
        return self.align(alone, where=jnp.ones(alone.shape[:2], bool), rngs=rngs).reshape(*x.shape[:2], -1)

    def _names(self) -> tuple[str, str, str]:
        """Where the history, the targets of training and the listing are."""
        if self.reads == "text":
            return self.vectors, "targets_content", "content"
        return self.history, "targets", "item"
