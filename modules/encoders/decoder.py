"""Decoders as encoders of texts: the family of Llama (Touvron et al., 2023), Qwen2, Qwen3 and Mistral.

Root-mean-square norms before each branch, rotary positions, causal attention whose queries share keys and values in
groups, and SwiGLU: x + W_o att(q, k, v), then x + W_down (silu(W_gate x) ⊙ W_up x). A text is the mean of its last
states, or the state of its last token, which has seen all of it.
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.encoders.text import TextEncoder, TextEncoderConfig, check_fit
from modules.layers.attention import attend, visible
from modules.layers.linear import Linear
from modules.layers.positions import last_valid, mean_valid
from modules.layers.tokens import TokenEmbedding


@chz.chz
class Decoder(TextEncoderConfig):
    """Qwen3 norms queries and keys (`qk_norm`), Qwen2 has biases of query, key and value (`bias`)."""

    dim: int = 1024
    depth: int = 28
    heads: int = 16
    groups: int = chz.field(default=8, doc="heads of keys and values")
    head: int | None = chz.field(default=128, doc="width of a head; None: dim / heads")
    hidden: int = 3072
    vocabulary: int = 151_936
    positions: int = chz.field(default=32_768, doc="longest text that the weights know")
    theta: float = chz.field(default=1e6, doc="base of the rotary positions")
    epsilon: float = 1e-6
    bias: bool = False
    qk_norm: bool = False
    pool: Literal["mean", "last"] = "mean"

    @chz.validate
    def _check(self) -> None:
        if self.heads % self.groups or self.width_of_head % 2:
            raise ValueError(f"{self.heads} heads of {self.width_of_head} in {self.groups} groups do not divide")

    @property
    def width_of_head(self) -> int:
        return self.head or self.dim // self.heads

    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> "DecoderEncoder":
        check_fit(tokens=tokens, vocabulary=self.vocabulary, length=length, positions=self.positions)
        return DecoderEncoder(self, rngs=rngs)


class DecoderEncoder(TextEncoder):
    def __init__(self, config: Decoder, *, rngs: nnx.Rngs):
        self.width, self.pool = config.dim, config.pool
        self.tokens = TokenEmbedding(config.vocabulary, dim=config.dim, rngs=rngs)
        self.blocks = nnx.List([DecoderBlock(config, rngs=rngs) for _ in range(config.depth)])
        self.last = nnx.RMSNorm(config.dim, epsilon=config.epsilon, rngs=rngs)

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        x = self.states(ids, where=where)
        if self.pool == "mean":
            return mean_valid(x, where=where)
        return jnp.where(where[:, :1], last_valid(x, length=where.sum(axis=1)), 0)

    def states(self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """The last layer's vectors, after the last norm."""
        x, mask = self.tokens(ids), visible(where)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.last(x)


class DecoderBlock(nnx.Module):
    def __init__(self, config: Decoder, *, rngs: nnx.Rngs):
        dim, head = config.dim, config.width_of_head
        self.heads, self.groups, self.theta = config.heads, config.groups, config.theta

        def linear(inputs: int, outputs: int, *, bias: bool = False) -> Linear:
            return Linear(inputs, outputs, use_bias=bias, rngs=rngs)

        def norm(width: int) -> nnx.RMSNorm:
            return nnx.RMSNorm(width, epsilon=config.epsilon, rngs=rngs)

        self.norm_attention, self.norm_mlp = norm(dim), norm(dim)
        self.query = linear(dim, config.heads * head, bias=config.bias)
        self.key = linear(dim, config.groups * head, bias=config.bias)
        self.value = linear(dim, config.groups * head, bias=config.bias)
        self.out = linear(config.heads * head, dim)
        self.norm_query = norm(head) if config.qk_norm else None
        self.norm_key = norm(head) if config.qk_norm else None
        self.gate, self.up = linear(dim, config.hidden), linear(dim, config.hidden)
        self.down = linear(config.hidden, dim)

    def __call__(self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t t"]) -> Float[Array, "b t d"]:
        y = self.norm_attention(x)
        query, key, value = (
            p.reshape(*x.shape[:2], n, -1)
            for p, n in ((self.query(y), self.heads), (self.key(y), self.groups), (self.value(y), self.groups))
        )
        if self.norm_query is not None and self.norm_key is not None:
            query, key = self.norm_query(query), self.norm_key(key)
        query, key = rotated(query, theta=self.theta), rotated(key, theta=self.theta)
        key, value = (jnp.repeat(p, self.heads // self.groups, axis=2) for p in (key, value))
        x = x + self.out(attend(query, key, value, mask=mask, causal=True).reshape(*x.shape[:2], -1))
        y = self.norm_mlp(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y))


def rotated(x: Float[Array, "b t h e"], *, theta: float) -> Float[Array, "b t h e"]:
    """Pair (i, i + e/2) turned by the angle t theta^(-2i/e) (RoFormer, Su et al., 2021), as these files have it."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] * theta ** (-jnp.arange(half) / half)[None]
    cos, sin = (f(angle)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
