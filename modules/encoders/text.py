"""Encoder of token ids: a small bidirectional transformer, mean over the tokens."""

import chz
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.positions import Positions, mean_valid
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


@chz.chz
class TextTransformer:
    dim: int = 64
    depth: int = 1
    heads: int = 4
    dropout: float = 0.0

    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> "TextEncoder":
        """For texts of at most `length` ids out of `tokens`."""
        return TextEncoder(self, tokens=tokens, length=length, rngs=rngs)


class TextEncoder(nnx.Module):
    """One vector of `width` per text; zeros for an empty one."""

    def __init__(self, config: TextTransformer, *, tokens: int, length: int, rngs: nnx.Rngs):
        self.width = config.dim
        self.tokens = TokenEmbedding(tokens, dim=config.dim, rngs=rngs)
        self.positions = Positions(length, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            config.dim, depth=config.depth, heads=config.heads, dropout=config.dropout, rngs=rngs
        )

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        x = self.dropout(self.positions(self.tokens(ids)), rngs=rngs)
        return mean_valid(self.transformer(x, mask=visible(where, causal=False), rngs=rngs), where=where)
