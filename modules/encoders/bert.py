"""BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (Devlin et al., NAACL 2019).

Also of its shape, by other sizes and weights: RoBERTa (Liu et al., 2019), MiniLM (Wang et al., NeurIPS 2020) and the
sentence encoders made of them (Reimers and Gurevych, EMNLP 2019), which take the mean over the tokens.
"""

from typing import Literal

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.encoders.text import TextEncoder, TextEncoderConfig, check_fit
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.positions import Positions, mean_valid
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


@chz.chz
class BERT(TextEncoderConfig):
    """BERT base. MiniLM-L6: dim=384, depth=6. RoBERTa: vocabulary=50265, types=1, epsilon=1e-5."""

    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = chz.field(default=None, doc="width of the MLPs; None: 4 x dim")
    vocabulary: int = chz.field(default=30522, doc="rows of the embedding, at least the tokenizer's tokens")
    positions: int = chz.field(default=512, doc="longest text that the weights know")
    types: int = chz.field(default=2, doc="kinds of segments; texts here are of the first")
    epsilon: float = chz.field(default=1e-12, doc="of the layer norms")
    dropout: float = 0.0
    pool: Literal["mean", "cls", "pooler"] = chz.field(
        default="mean", doc="mean of the tokens, the first of them, or the first through a last layer with tanh"
    )

    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> "BERTEncoder":
        check_fit(tokens=tokens, vocabulary=self.vocabulary, length=length, positions=self.positions)
        return BERTEncoder(self, rngs=rngs)


class BERTEncoder(TextEncoder):
    def __init__(self, config: BERT, *, rngs: nnx.Rngs):
        dim = config.dim
        self.width, self.pool = dim, config.pool
        self.tokens = TokenEmbedding(config.vocabulary, dim=dim, rngs=rngs)
        self.positions = Positions(config.positions, dim=dim, rngs=rngs)
        self.types = Positions(config.types, dim=dim, rngs=rngs)
        self.norm = LayerNorm(dim, epsilon=config.epsilon)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            dim,
            depth=config.depth,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
            norm="post",
            activation="exact",
            epsilon=config.epsilon,
            rngs=rngs,
        )
        self.pooler = Linear(dim, dim, rngs=rngs) if config.pool == "pooler" else None

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        x = self.states(ids, where=where, rngs=rngs)
        if self.pool == "mean":
            return mean_valid(x, where=where)
        first = x[:, 0] if self.pooler is None else jnp.tanh(self.pooler(x[:, 0]))
        return jnp.where(where[:, :1], first, 0)

    def states(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        """The last layer's vectors."""
        x = self.positions(self.tokens(ids)) + self.types.vectors[:1][None]
        x = self.dropout(self.norm(x), rngs=rngs)
        return self.transformer(x, mask=visible(where), rngs=rngs)
