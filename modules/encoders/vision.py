"""Encoders of pictures: vision transformers (Dosovitskiy et al., ICLR 2021) and a small convolutional net."""

import dataclasses
from itertools import pairwise
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from modules.base import FeatureSpec
from modules.layers.attention import MultiHeadAttention
from modules.layers.dropout import Dropout
from modules.layers.experts import Experts
from modules.layers.gelu import Gelu, gelu
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.patches import PatchEmbedding, Resize
from modules.layers.tokens import keep_some
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

    def of(self, image: FeatureSpec, *, rngs: nnx.Rngs) -> Encoder:
        """For the pictures of a feature."""
        if image.kind != "image":
            raise ValueError(f"{type(self).__name__} needs an image; {image.name!r} is a feature of kind {image.kind}")
        return self.make(image.shape, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Details:
    """In what families of published vision transformers differ, beside their sizes."""

    activation: Gelu = "tanh"
    epsilon: float = 1e-6  # of the layer norms
    patch_bias: bool = True
    norm_first: bool = False  # another layer norm before the first block
    map_mlp: bool = False  # an MLP on a residual branch closes the MAP head
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # of the pixels, 0..1, by channel
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


@chz.chz
class ViT(ImageEncoder):
    patch: int = 8
    dim: int = 64
    depth: int = 2
    heads: int = 4
    hidden: int | None = chz.field(default=None, doc="width of the MLPs; None: 4 x dim")
    dropout: float = 0.0
    pool: Literal["mean", "map", "cls"] = chz.field(
        default="mean", doc="mean of the patches, a learned query over them, or a token that stands before them"
    )
    registers: int = chz.field(
        default=0, doc="tokens of no patch that the blocks may write to (Darcet et al., ICLR 2024)"
    )
    drop_patches: float = chz.field(
        default=0.0, doc="share of the patches that a training step leaves out, at random (FLIP, Li et al., CVPR 2023)"
    )
    learned_at: tuple[int, int] | None = chz.field(
        default=None, doc="height and width that positions are learned for, interpolated to the images'; None: theirs"
    )
    resize: Resize = chz.field(default="bicubic", doc="how positions are interpolated")
    experts: Experts | None = chz.field(default=None, doc="in place of the MLPs")

    details = Details()

    @chz.validate
    def _check(self) -> None:
        if not 0 <= self.drop_patches < 1:
            raise ValueError(f"drop_patches is {self.drop_patches}; give a share from 0 to below 1")

    def make(self, shape: Shape, *, rngs: nnx.Rngs) -> "ViTEncoder":
        return ViTEncoder(self, shape=shape, rngs=rngs)


class ViTEncoder(Encoder):
    def __init__(self, config: ViT, *, shape: Shape, rngs: nnx.Rngs):
        own, dim = config.details, config.dim
        self.width, self.details = dim, own
        learned = (*(config.learned_at or shape[:2]), shape[2])
        self.patches = PatchEmbedding(
            learned, size=config.patch, dim=dim, bias=own.patch_bias, resize=config.resize, rngs=rngs
        )
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            dim,
            depth=config.depth,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
            activation=own.activation,
            epsilon=own.epsilon,
            experts=config.experts,
            rngs=rngs,
        )
        hidden = (config.hidden or 4 * dim) if own.map_mlp else None
        self.kind = config.pool
        self.pool = (
            AttentionPool(dim, heads=config.heads, hidden=hidden, details=own, rngs=rngs)
            if config.pool == "map"
            else None
        )
        vectors = nnx.initializers.normal(0.02)
        self.cls = nnx.Param(vectors(rngs.params(), (1, dim))) if config.pool == "cls" else None
        self.registers = nnx.Param(vectors(rngs.params(), (config.registers, dim))) if config.registers else None
        self.first = LayerNorm(dim, epsilon=own.epsilon) if own.norm_first else None
        self.drop_patches = config.drop_patches

    def __call__(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        x = self.states(images, rngs=rngs)
        if self.kind == "cls":
            return x[:, 0]
        extra = 0 if self.registers is None else self.registers.shape[0]
        return x[:, extra:].mean(axis=1) if self.pool is None else self.pool(x[:, extra:])

    def states(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b t d"]:
        """The last layer's vectors: of the class token, of the registers, where there are such, then of the patches."""
        return self.transformer(self.embedded(images, rngs=rngs), rngs=rngs)

    def embedded(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b t d"]:
        """What the first layer reads, in the order of `states`."""
        x = self.patches(to_unit(images, dtype=self.patches.positions.dtype, details=self.details))
        if rngs is not None and self.drop_patches:
            x = keep_some(x, count=max(round(x.shape[1] * (1 - self.drop_patches)), 1), rngs=rngs)
        for before in (self.registers, self.cls):
            if before is not None:
                x = jnp.concatenate([jnp.broadcast_to(before[...][None], (x.shape[0], *before.shape)), x], axis=1)
        return self.dropout(x if self.first is None else self.first(x), rngs=rngs)


class AttentionPool(nnx.Module):
    """One learned query attends to all positions (the MAP head of Zhai et al., CVPR 2022).

    With a `hidden` an MLP on a residual branch follows, as theirs has it.
    """

    def __init__(
        self, dim: int, *, heads: int, hidden: int | None = None, details: Details | None = None, rngs: nnx.Rngs
    ):
        self.probe = nnx.Param(nnx.initializers.xavier_uniform()(rngs.params(), (1, dim)))
        self.attention = MultiHeadAttention(dim, heads=heads, rngs=rngs)
        self.details = details or Details()
        self.mlp = hidden is not None
        if hidden is not None:
            self.norm = LayerNorm(dim, epsilon=self.details.epsilon)
            self.up, self.down = Linear(dim, hidden, rngs=rngs), Linear(hidden, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        probe = jnp.broadcast_to(self.probe[None], (x.shape[0], 1, x.shape[-1]))
        y = self.attention(probe, memory=x)[:, 0]
        return y + self.down(gelu(self.up(self.norm(y)), kind=self.details.activation)) if self.mlp else y


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
        self.norms = nnx.List([LayerNorm(o) for o in widths[1:]])

    def __call__(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        x = to_unit(images, dtype=self.convs[0].kernel.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.gelu(norm(conv(x)))
        return x.mean(axis=(1, 2))


def to_unit(
    images: UInt8[Array, "b h w c"], *, dtype: jnp.dtype, details: Details | None = None
) -> Float[Array, "b h w c"]:
    """Bytes to -1..1, or to the mean and spread that published weights were trained with."""
    if details is None or (details.mean, details.std) == (Details.mean, Details.std):
        return images.astype(dtype) / 127.5 - 1.0
    mean, std = (jnp.asarray(v, jnp.float32)[None, None, None] for v in (details.mean, details.std))
    return ((images.astype(jnp.float32) / 255 - mean) / std).astype(dtype)
