"""Transformer blocks with the norm before or after each branch."""

from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.attention import MultiHeadAttention
from modules.layers.dropout import Dropout

Norm = Literal["pre", "post"]


class Block(nnx.Module):
    """Attention and a position-wise MLP, each on a residual branch."""

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float, norm: Norm, rngs: nnx.Rngs):
        self.norm = norm
        self.norm_attention = nnx.LayerNorm(dim, rngs=rngs)
        self.attention = MultiHeadAttention(dim, heads=heads, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(dim, rngs=rngs)
        self.up = nnx.Linear(dim, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, dim, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t t"] | None, rngs: nnx.Rngs | None
    ) -> Float[Array, "b t d"]:
        def drop(y):
            return self.dropout(y, rngs=rngs)

        def mlp(y):
            return self.down(drop(jax.nn.gelu(self.up(y))))

        if self.norm == "pre":
            x = x + drop(self.attention(self.norm_attention(x), mask=mask))
            return x + drop(mlp(self.norm_mlp(x)))
        x = self.norm_attention(x + drop(self.attention(x, mask=mask)))
        return self.norm_mlp(x + drop(mlp(x)))


class Transformer(nnx.Module):
    """A stack of blocks; with norm="pre" a last norm closes the residual stream."""

    def __init__(
        self,
        dim: int,
        *,
        depth: int,
        heads: int,
        expand: int = 4,
        dropout: float = 0.0,
        norm: Norm = "pre",
        rngs: nnx.Rngs,
    ):
        self.blocks = nnx.List(
            [Block(dim, heads=heads, hidden=expand * dim, dropout=dropout, norm=norm, rngs=rngs) for _ in range(depth)]
        )
        self.last = nnx.LayerNorm(dim, rngs=rngs) if norm == "pre" else None

    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        mask: Bool[Array, "b t t"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t d"]:
        for block in self.blocks:
            x = block(x, mask=mask, rngs=rngs)
        return x if self.last is None else self.last(x)
