"""Encoder of clips: frames that exchange messages while they are encoded, then integration over time.

X-CLIP: Ni et al., "Expanding Language-Image Pretrained Models for General Video Recognition", ECCV 2022, section 3.2,
in the form that COPE (Bai et al., ICCV 2023) builds on.
"""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8

from modules.encoders.vision import ViT
from modules.layers.attention import MultiHeadAttention, visible
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.positions import mean_valid
from modules.layers.transformer import Transformer

Shape = tuple[int, ...]


@chz.chz
class Frames:
    vision: ViT = chz.field(
        default_factory=lambda: ViT(pool="cls"), doc="of one frame; its class token speaks for the frame"
    )
    messages: bool = chz.field(default=True, doc="frames see each other in every block of vision")
    integration: int = chz.field(default=1, doc="blocks over the frames' vectors; 0: their mean alone")

    @chz.validate
    def _pools_by_a_token(self) -> None:
        if self.vision.pool != "cls" or self.vision.drop_patches:
            raise ValueError("Frames needs vision.pool=cls and vision.drop_patches=0")

    def make(self, shape: Shape, *, rngs: nnx.Rngs) -> "FramesEncoder":
        """For clips of `shape`, (frames, height, width, channels)."""
        return FramesEncoder(self, shape=shape, rngs=rngs)


class FramesEncoder(nnx.Module):
    """One vector of `width` per clip: the mean over its valid frames; zeros for a clip without any."""

    def __init__(self, config: Frames, *, shape: Shape, rngs: nnx.Rngs):
        dim, heads = config.vision.dim, config.vision.heads
        self.width = dim
        self.vit = config.vision.make(shape[1:], rngs=rngs)
        depth = config.vision.depth if config.messages else 0
        self.messages = nnx.List([Messages(dim, heads=heads, rngs=rngs) for _ in range(depth)])
        self.times = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (shape[0], dim)))
        self.integration = Transformer(dim, depth=config.integration, heads=heads, rngs=rngs)

    def image(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        """A picture is a clip of one frame."""
        return self(images[:, None], where=jnp.ones((images.shape[0], 1), bool), rngs=rngs)

    def __call__(
        self, clips: UInt8[Array, "b f h w c"], *, where: Bool[Array, "b f"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        x = self.frames(clips, where=where, rngs=rngs)
        if not self.integration.blocks:
            return mean_valid(x, where=where)
        if clips.shape[1] == 1:
            # As released: one frame stands at every time, so that pages meet all the positions that clips do.
            count = self.times.shape[0]
            x, where = jnp.repeat(x, count, axis=1), jnp.repeat(where, count, axis=1)
        mask = visible(where)
        over_time = self.integration(x + self.times[: x.shape[1]][None], mask=mask, rngs=rngs)
        return mean_valid(x + over_time, where=where)

    def frames(
        self, clips: UInt8[Array, "b f h w c"], *, where: Bool[Array, "b f"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b f d"]:
        """A vector per frame."""
        clip = clips.shape[:2]
        x = self.vit.embedded(clips.reshape(-1, *clips.shape[2:]), rngs=rngs)
        mask = visible(where)
        for number, block in enumerate(self.vit.transformer.blocks):
            if not self.messages:
                x = block(x, mask=None, rngs=rngs)
                continue
            message = self.messages[number](x[:, 0].reshape(*clip, self.width), mask=mask).reshape(-1, 1, self.width)
            # The frame's tokens read the message; the message itself goes no further.
            x = block(jnp.concatenate([x, message], axis=1), mask=None, rngs=rngs)[:, :-1]
        return self.vit.transformer.last(x[:, 0]).reshape(*clip, self.width)


class Messages(nnx.Module):
    """m_f = W cls_f;  m + MHA(LN(m)) over the frames of a clip (eqs. 5 and 6)."""

    def __init__(self, dim: int, *, heads: int, rngs: nnx.Rngs):
        self.project = Linear(dim, dim, rngs=rngs)
        self.norm = LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads=heads, rngs=rngs)

    def __call__(self, cls: Float[Array, "b f d"], *, mask: Bool[Array, "b f f"]) -> Float[Array, "b f d"]:
        message = self.project(cls)
        return message + self.attention(self.norm(message), mask=mask)
