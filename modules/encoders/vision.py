"""Encoders of small pictures: a vision transformer (Dosovitskiy et al., ICLR 2021) and a convolutional net."""

from itertools import pairwise
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from modules.layers.attention import MultiHeadAttention
from modules.layers.dropout import Dropout
from modules.layers.patches import PatchEmbedding
from modules.layers.transformer import Transformer

Shape = tuple[int, ...]


class Encoder(nnx.Module):
    """Bytes to one vector of `width`. `rngs=None` means inference."""

    width: int

    def __call__(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


@chz.chz
class ImageEncoder:
    def make(self, shape: Shape, *, rngs: nnx.Rngs) -> Encoder:
        """For images of `shape`, (height, width, channels)."""
        raise NotImplementedError(f"{type(self).__name__} does not define make")


@chz.chz
class ViT(ImageEncoder):
    patch: int = 8
    dim: int = 64
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0
    pool: Literal["mean", "map"] = chz.field(default="mean", doc="mean of the patches, or a learned query over them")

    def make(self, shape: Shape, *, rngs: nnx.Rngs) -> "ViTEncoder":
        return ViTEncoder(self, shape=shape, rngs=rngs)


class ViTEncoder(Encoder):
    def __init__(self, config: ViT, *, shape: Shape, rngs: nnx.Rngs):
        self.width = config.dim
        self.patches = PatchEmbedding(shape, size=config.patch, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            config.dim, depth=config.depth, heads=config.heads, dropout=config.dropout, rngs=rngs
        )
        self.pool = AttentionPool(config.dim, heads=config.heads, rngs=rngs) if config.pool == "map" else None

    def __call__(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        x = self.patches(to_unit(images, dtype=self.patches.positions.dtype))
        x = self.dropout(x, rngs=rngs)
        x = self.transformer(x, rngs=rngs)
        return x.mean(axis=1) if self.pool is None else self.pool(x)


class AttentionPool(nnx.Module):
    """One learned query attends to all positions (the MAP head of Zhai et al., CVPR 2022)."""

    def __init__(self, dim: int, *, heads: int, rngs: nnx.Rngs):
        self.probe = nnx.Param(nnx.initializers.xavier_uniform()(rngs.params(), (1, dim)))
        self.attention = MultiHeadAttention(dim, heads=heads, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        probe = jnp.broadcast_to(self.probe[None], (x.shape[0], 1, x.shape[-1]))
        return self.attention(probe, memory=x)[:, 0]


@chz.chz
class ConvNet(ImageEncoder):
    widths: tuple[int, ...] = chz.field(default=(32, 64, 128), doc="channels of each stage; a stage halves the sides")

    def make(self, shape: Shape, *, rngs: nnx.Rngs) -> "ConvNetEncoder":
        return ConvNetEncoder(self, shape=shape, rngs=rngs)


class ConvNetEncoder(Encoder):
    """Strided 3x3 convolution, layer norm and GELU per stage; mean over what is left of the picture."""

    def __init__(self, config: ConvNet, *, shape: Shape, rngs: nnx.Rngs):
        widths = (shape[2], *config.widths)
        self.width = widths[-1]
        self.convs = nnx.List(
            [nnx.Conv(i, o, kernel_size=(3, 3), strides=(2, 2), rngs=rngs) for i, o in pairwise(widths)]
        )
        self.norms = nnx.List([nnx.LayerNorm(o, rngs=rngs) for o in widths[1:]])

    def __call__(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        x = to_unit(images, dtype=self.convs[0].kernel.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.gelu(norm(conv(x)))
        return x.mean(axis=(1, 2))


def to_unit(images: UInt8[Array, "b h w c"], *, dtype: jnp.dtype) -> Float[Array, "b h w c"]:
    """Bytes to -1..1."""
    return images.astype(dtype) / 127.5 - 1.0
