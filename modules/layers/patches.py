"""Images as sequences of patches."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.layers.linear import Linear

Grid = tuple[int, int]
"""Patches down and across."""

Resize = Literal["bicubic", "bilinear"]


def patchify(images: Float[Array, "b h w c"], *, size: int) -> Float[Array, "b n p"]:
    """Square patches row by row, each flattened as (height, width, channel)."""
    b, h, w, c = images.shape
    grid = images.reshape(b, h // size, size, w // size, size, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h // size) * (w // size), size * size * c)


def grid_of(shape: tuple[int, ...], *, size: int) -> Grid:
    """The patches of images of `shape`, (height, width, ...)."""
    height, width = shape[:2]
    if height % size or width % size:
        raise ValueError(f"images of {height}x{width} do not divide into patches of {size}x{size}")
    return height // size, width // size


def resize_grid(
    positions: Float[Array, "n d"], *, old: Grid, new: Grid, method: Resize = "bicubic"
) -> Float[Array, "m d"]:
    """The vectors of a grid of positions, interpolated to another grid; as they are where the two are equal."""
    if old == new:
        return positions
    square = positions.reshape(*old, -1).astype(jnp.float32)
    kind = "bilinear" if method == "bilinear" else "bicubic"
    resized = jax.image.resize(square, (*new, square.shape[-1]), method=kind, antialias=False)
    return resized.reshape(new[0] * new[1], -1).astype(positions.dtype)


class PatchEmbedding(nnx.Module):
    """Linear map of each patch plus a learned position.

    Positions are learned for images of `shape`; those of other sizes take them interpolated.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        size: int,
        dim: int,
        bias: bool = True,
        resize: Resize = "bicubic",
        rngs: nnx.Rngs,
    ):
        self.size, self.resize = size, resize
        self.grid = grid_of(shape, size=size)
        self.project = Linear(size * size * shape[2], dim, use_bias=bias, rngs=rngs)
        self.positions = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (self.grid[0] * self.grid[1], dim)))

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        grid = grid_of(images.shape[1:], size=self.size)
        positions = resize_grid(self.positions[...], old=self.grid, new=grid, method=self.resize)
        return self.project(patchify(images, size=self.size)) + positions[None]
