"""Encoders of token ids: what they have in common, and a small bidirectional transformer, mean over the tokens."""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.experts import Experts
from modules.layers.positions import Positions, mean_valid
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


class TextEncoder(nnx.Module):
    """One vector of `width` per text; zeros for an empty one. `rngs=None` means inference."""

    width: int

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


@chz.chz
class TextEncoderConfig:
    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> TextEncoder:
        """For texts of at most `length` ids out of `tokens`."""
        raise NotImplementedError(f"{type(self).__name__} does not define make")


@chz.chz
class TextTransformer(TextEncoderConfig):
    dim: int = 64
    depth: int = 1
    heads: int = 4
    dropout: float = 0.0
    experts: Experts | None = chz.field(default=None, doc="in place of the MLPs")

    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> "TextTransformerEncoder":
        return TextTransformerEncoder(self, tokens=tokens, length=length, rngs=rngs)


class TextTransformerEncoder(TextEncoder):
    def __init__(self, config: TextTransformer, *, tokens: int, length: int, rngs: nnx.Rngs):
        self.width = config.dim
        self.tokens = TokenEmbedding(tokens, dim=config.dim, rngs=rngs)
        self.positions = Positions(length, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            config.dim,
            depth=config.depth,
            heads=config.heads,
            dropout=config.dropout,
            experts=config.experts,
            rngs=rngs,
        )

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        return mean_valid(self.states(ids, where=where, rngs=rngs), where=where)

    def states(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        """The last layer's vectors."""
        return self.read(self.tokens(ids), where=where, rngs=rngs)

    def read(
        self, words: Float[Array, "b t d"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        """As `states`, of words that need be no tokens."""
        x = self.dropout(self.positions(words), rngs=rngs)
        return self.transformer(x, mask=visible(where), rngs=rngs)

    def after(
        self,
        word: Float[Array, "b d"],
        ids: Int[Array, "b t"],
        *,
        where: Bool[Array, "b t"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b d"]:
        """One vector of `word`, which is no token, with the text behind it."""
        words = jnp.concatenate([word[:, None], self.tokens(ids)], axis=1)
        held = jnp.pad(where, ((0, 0), (1, 0)), constant_values=True)
        return mean_valid(self.read(words, where=held, rngs=rngs), where=held)


def check_fit(*, tokens: int, vocabulary: int, length: int, positions: int) -> None:
    """Refuses texts for which published weights have no rows."""
    if tokens > vocabulary:
        raise ValueError(
            f"the tokenizer has {tokens} tokens, the embedding of these weights {vocabulary} rows: "
            "use the tokenizer that came with them, or set vocabulary and train the embedding"
        )
    if length > positions:
        raise ValueError(f"texts have up to {length} tokens, the weights positions for {positions}; shorten the texts")
