"""A picture as overlapping windows: what stands in for the regions of an object detector where there is none."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

SHADES = 4
"""Of each channel, so that a colour is one of SHADES^3."""


@chz.chz
class Windows:
    size: int = chz.field(default=12, doc="side of a window, in pixels")
    stride: int = chz.field(default=4, doc="from one window to the next")

    def corners(self, shape: tuple[int, ...]) -> np.ndarray:
        """[n, 2] upper left corners in an image of `shape`, row by row."""
        height, width = shape[:2]
        if self.size > min(height, width) or (height - self.size) % self.stride or (width - self.size) % self.stride:
            raise ValueError(
                f"windows of {self.size} by steps of {self.stride} do not cover {height}x{width}: change model.windows"
            )
        down, across = (np.arange(0, side - self.size + 1, self.stride) for side in (height, width))
        return np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)

    def cut(self, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b n s s c"]:
        corner, within = self.corners(images.shape[1:]), np.arange(self.size)
        down, across = (corner[:, axis, None] + within for axis in (0, 1))
        return images[:, down[:, :, None], across[:, None, :]]


def boxes(windows: Windows, *, shape: tuple[int, ...]) -> np.ndarray:
    """[n, 5]: left, top, right, bottom and area of each window, as shares of the image."""
    corner, (height, width) = windows.corners(shape), shape[:2]
    y, x = corner[:, 0] / height, corner[:, 1] / width
    tall, wide = windows.size / height, windows.size / width
    return np.stack([x, y, x + wide, y + tall, np.full(len(corner), tall * wide)], axis=1).astype(np.float32)


def overlaps(windows: Windows, *, shape: tuple[int, ...]) -> np.ndarray:
    """[n, n]: area that two windows share over the area that they cover together."""
    corner = windows.corners(shape)
    shared = np.maximum(windows.size - np.abs(corner[:, None] - corner[None]), 0).prod(axis=-1)
    return shared / (2 * windows.size**2 - shared)


def colours(windows: UInt8[Array, "b n s s c"]) -> Float[Array, "b n k"]:
    """The share of each of SHADES^c colours among a window's pixels: its class distribution."""
    channels = windows.shape[-1]
    shade = windows.astype(jnp.int32) * SHADES // 256
    place = jnp.asarray([SHADES**i for i in range(channels)], jnp.int32)
    number = jnp.einsum("bnstc,c->bnst", shade, place).reshape(*windows.shape[:2], -1)
    return jax.nn.one_hot(number, SHADES**channels).mean(axis=2)


def hide_regions(anchors: Bool[Array, "b n"], *, overlap: np.ndarray, least: float) -> Bool[Array, "b n"]:
    """The anchors and all regions that overlap one by `least` or more, which would give it away."""
    near = jnp.asarray(overlap >= least, jnp.float32)
    return anchors | (jnp.einsum("bn,nm->bm", anchors.astype(jnp.float32), near) > 0)
