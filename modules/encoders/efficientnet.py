"""EfficientNet-Lite, after EfficientNet (Tan and Le, ICML 2019), for devices on which simple operations are fast.

MBConv blocks (Sandler et al., CVPR 2018) without squeeze-and-excite, ReLU6 in place of swish; stem and head keep
their width, and the first and last stage their single block, however the rest is scaled.
"""

import math

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from modules.encoders.vision import Encoder, ImageEncoder, Shape, to_unit
from modules.layers.depthwise import Depthwise
from modules.layers.norm import BatchNorm

# Table 1 of the paper: blocks, kernel, stride of the first, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, EPSILON = 32, 1e-3


@chz.chz
class EfficientNetLite(ImageEncoder):
    """Lite0. Lite1: depth=1.1; Lite2: width=1.1, depth=1.2; Lite3: 1.2, 1.4; Lite4: 1.4, 1.8."""

    width: float = chz.field(default=1.0, doc="factor of the channels")
    depth: float = chz.field(default=1.0, doc="factor of the blocks")
    head: int | None = chz.field(
        default=1280, doc="channels of the last convolution, whose mean is the vector; None: the `stages` alone"
    )
    stages: tuple[int, ...] = chz.field(
        default=(), doc="stages, from 0, whose outputs follow the last convolution's in the vector: what is finer"
    )
    grid: tuple[int, int] = chz.field(default=(1, 1), doc="parts, down and across, of which `stages` give a mean each")
    momentum: float = chz.field(default=0.99, doc="of the running statistics")
    batch_statistics: bool = chz.field(
        default=True, doc="normalise by the batch in training; False: by the statistics held, as fine-tuning may want"
    )

    @chz.validate
    def _check(self) -> None:
        if wrong := [stage for stage in self.stages if not 0 <= stage < len(STAGES)]:
            raise ValueError(f"EfficientNetLite has stages 0 to {len(STAGES) - 1}, no {wrong[0]}")
        if self.head is None and not self.stages:
            raise ValueError("EfficientNetLite gives no vector: set head, stages, or both")

    def make(self, shape: Shape, *, rngs: nnx.Rngs) -> "EfficientNetLiteEncoder":
        return EfficientNetLiteEncoder(self, channels=shape[2], rngs=rngs)


class EfficientNetLiteEncoder(Encoder):
    def __init__(self, config: EfficientNetLite, *, channels: int, rngs: nnx.Rngs):
        self.batch_statistics, self.taken, self.grid = config.batch_statistics, config.stages, config.grid
        self.stem = ConvNorm(channels, STEM, kernel=3, stride=2, momentum=config.momentum, rngs=rngs)
        stages, widths, width = [], [], STEM
        for index, (blocks, kernel, stride, expand, base) in enumerate(STAGES):
            fixed = index in (0, len(STAGES) - 1)
            count = blocks if fixed else math.ceil(blocks * config.depth)
            out = _rounded(base * config.width)
            made = []
            for i in range(count):
                made.append(
                    MBConv(
                        width,
                        out,
                        kernel=kernel,
                        stride=1 if i else stride,
                        expand=expand,
                        momentum=config.momentum,
                        rngs=rngs,
                    )
                )
                width = out
            stages.append(nnx.List(made))
            widths.append(width)
        self.stages = nnx.List(stages)
        self.width = (config.head or 0) + math.prod(config.grid) * sum(widths[stage] for stage in config.stages)
        last = config.head
        self.head = None if last is None else ConvNorm(width, last, kernel=1, momentum=config.momentum, rngs=rngs)

    def __call__(self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        rngs = rngs if self.batch_statistics else None
        x = relu6(self.stem(to_unit(images, dtype=self.stem.conv.kernel.dtype), rngs=rngs))
        finer: dict[int, jax.Array] = {}
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = block(x, rngs=rngs)
            if index in self.taken:
                finer[index] = means_of_parts(x, grid=self.grid)
        last = () if self.head is None else (relu6(self.head(x, rngs=rngs)).mean(axis=(1, 2)),)
        return jnp.concatenate([*last, *(finer[index] for index in self.taken)], axis=-1)


class MBConv(nnx.Module):
    """Expand, filter each channel alone, project; a residual where the shape stays."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expand: int, momentum: float, rngs: nnx.Rngs
    ):
        inner = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.expand = ConvNorm(inputs, inner, kernel=1, momentum=momentum, rngs=rngs) if expand > 1 else None
        self.depthwise = ConvNorm(
            inner, inner, kernel=kernel, stride=stride, depthwise=True, momentum=momentum, rngs=rngs
        )
        self.project = ConvNorm(inner, outputs, kernel=1, momentum=momentum, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], *, rngs: nnx.Rngs | None) -> Float[Array, "b k l o"]:
        y = x if self.expand is None else relu6(self.expand(x, rngs=rngs))
        y = self.project(relu6(self.depthwise(y, rngs=rngs)), rngs=rngs)
        return x + y if self.residual else y


class ConvNorm(nnx.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        depthwise: bool = False,
        momentum: float,
        rngs: nnx.Rngs,
    ):
        sides, strides = (kernel, kernel), (stride, stride)
        self.conv = (
            Depthwise(inputs, kernel=kernel, stride=stride, rngs=rngs)
            if depthwise
            else nnx.Conv(inputs, outputs, kernel_size=sides, strides=strides, use_bias=False, rngs=rngs)
        )
        self.norm = BatchNorm(outputs, momentum=momentum, epsilon=EPSILON)

    def __call__(self, x: Float[Array, "b h w i"], *, rngs: nnx.Rngs | None) -> Float[Array, "b k l o"]:
        return self.norm(self.conv(x), rngs=rngs)


def means_of_parts(x: Float[Array, "b h w c"], *, grid: tuple[int, int]) -> Float[Array, "b n"]:
    """Part by part, each of all channels; a row or column that a cut goes through counts in both parts."""
    cuts = [
        [(i * side // parts, -(-(i + 1) * side // parts)) for i in range(parts)]
        for side, parts in zip(x.shape[1:3], grid, strict=True)
    ]
    means = [x[:, a:b, c:d].mean(axis=(1, 2)) for a, b in cuts[0] for c, d in cuts[1]]
    return jnp.concatenate(means, axis=-1)


def relu6(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    return jnp.minimum(jax.nn.relu(x), 6)


def _rounded(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, and no less than nine tenths of it."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
