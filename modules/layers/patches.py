"""Images as sequences of patches."""

from flax import nnx
from jaxtyping import Array, Float


def patchify(images: Float[Array, "b h w c"], *, size: int) -> Float[Array, "b n p"]:
    """Square patches row by row, each flattened as (height, width, channel)."""
    b, h, w, c = images.shape
    grid = images.reshape(b, h // size, size, w // size, size, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h // size) * (w // size), size * size * c)


class PatchEmbedding(nnx.Module):
    """Linear map of each patch plus a learned position."""

    def __init__(self, shape: tuple[int, ...], *, size: int, dim: int, rngs: nnx.Rngs):
        height, width, channels = shape
        if height % size or width % size:
            raise ValueError(f"images of {height}x{width} do not divide into patches of {size}x{size}")
        self.size = size
        self.project = nnx.Linear(size * size * channels, dim, rngs=rngs)
        count = (height // size) * (width // size)
        self.positions = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (count, dim)))

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        return self.project(patchify(images, size=self.size)) + self.positions[None]
