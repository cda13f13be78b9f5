"""Transformer blocks with the norm before or after each branch."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.attention import MultiHeadAttention
from modules.layers.dropout import Dropout
from modules.layers.experts import Experts
from modules.layers.gelu import Gelu, gelu
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear

Norm = Literal["pre", "post"]


class Block(nnx.Module):
    """Attention and a position-wise MLP, or a mixture of them, each on a residual branch."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        hidden: int,
        dropout: float,
        norm: Norm,
        activation: Gelu = "tanh",
        epsilon: float = 1e-6,
        experts: Experts | None = None,
        rngs: nnx.Rngs,
    ):
        self.norm, self.activation = norm, activation
        self.norm_attention = LayerNorm(dim, epsilon=epsilon)
        self.attention = MultiHeadAttention(dim, heads=heads, rngs=rngs)
        self.norm_mlp = LayerNorm(dim, epsilon=epsilon)
        if experts is None:
            self.experts = None
            self.up = Linear(dim, hidden, rngs=rngs)
            self.down = Linear(hidden, dim, rngs=rngs)
        else:
            self.experts = experts.make(dim, hidden=hidden, activation=activation, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        mask: Bool[Array, "b t t"] | None,
        causal: bool = False,
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "b t d"]:
        def drop(y):
            return self.dropout(y, rngs=rngs)

        def mlp(y):
            if self.experts is None:
                return self.down(drop(gelu(self.up(y), kind=self.activation)))
            # Every position sees itself unless it is padding.
            where = None if mask is None else jnp.diagonal(mask, axis1=1, axis2=2)
            return self.experts(y, where=where, training=rngs is not None)

        if self.norm == "pre":
            x = x + drop(self.attention(self.norm_attention(x), mask=mask, causal=causal))
            return x + drop(mlp(self.norm_mlp(x)))
        x = self.norm_attention(x + drop(self.attention(x, mask=mask, causal=causal)))
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
        hidden: int | None = None,
        dropout: float = 0.0,
        norm: Norm = "pre",
        activation: Gelu = "tanh",
        epsilon: float = 1e-6,
        experts: Experts | None = None,
        rngs: nnx.Rngs,
    ):
        """`hidden` is the width of the MLPs where it is not `expand` x `dim`."""

        def block() -> Block:
            return Block(
                dim,
                heads=heads,
                hidden=hidden or expand * dim,
                dropout=dropout,
                norm=norm,
                activation=activation,
                epsilon=epsilon,
                experts=experts,
                rngs=rngs,
            )

        self.blocks = nnx.List([block() for _ in range(depth)])
        self.last = LayerNorm(dim, epsilon=epsilon) if norm == "pre" else None

    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        mask: Bool[Array, "b t t"] | None = None,
        causal: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t d"]:
        """If causal, no position sees a later one."""
        for block in self.blocks:
            x = block(x, mask=mask, causal=causal, rngs=rngs)
        return x if self.last is None else self.last(x)
