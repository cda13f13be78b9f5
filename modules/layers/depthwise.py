"""Depthwise convolution: each channel by its own small filter (MobileNet, Howard et al., 2017).

XLA has no fast one for CPUs: there it is a sum of shifted pictures, one a place of the filter, which is fused into one
loop; on other devices it is the convolution that they know.
"""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class Depthwise(nnx.Module):
    """Padded as "SAME" pads: of a stride s and h rows, ceil(h / s) are left."""

    def __init__(self, channels: int, *, kernel: int, stride: int = 1, rngs: nnx.Rngs):
        self.stride = stride
        # As flax's Conv holds and starts it: what a channel sees is its own kernel x kernel places.
        start = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(start(rngs.params(), (kernel, kernel, 1, channels), jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b k l c"]:
        kernel = self.kernel[...].astype(x.dtype)
        return lax.platform_dependent(
            x, kernel, cpu=lambda x, w: shifted(x, w, self.stride), default=lambda x, w: convolved(x, w, self.stride)
        )


def convolved(x: Float[Array, "b h w c"], kernel: Float[Array, "m n 1 c"], stride: int) -> Float[Array, "b k l c"]:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted(x: Float[Array, "b h w c"], kernel: Float[Array, "m n 1 c"], stride: int) -> Float[Array, "b k l c"]:
    sides, places = x.shape[1:3], kernel.shape[:2]
    pads = lax.padtype_to_pads(sides, places, (stride, stride), "SAME")
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    down, across = (-(-side // stride) for side in sides)
    total = jnp.zeros((x.shape[0], down, across, x.shape[3]), jnp.float32)
    for i in range(places[0]):
        for j in range(places[1]):
            place = kernel[i : i + 1, j : j + 1].astype(jnp.float32)
            total += padded[:, i::stride, j::stride][:, :down, :across] * place
    return total.astype(x.dtype)
