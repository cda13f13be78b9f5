"""The plain tower: Linear, norm, activation, dropout, repeated."""

from itertools import pairwise
from typing import Literal

import chz
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.activations import Activation, Name
from modules.layers.dropout import Dropout
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.norm import BatchNorm


@chz.chz
class MLP:
    """Hidden layers of a tower."""

    widths: tuple[int, ...] = (256, 128)
    activation: Name = "relu"
    norm: Literal["batch", "layer"] | None = None
    dropout: float = 0.0

    def make(self, inputs: int, *, outputs: int | None = None, rngs: nnx.Rngs) -> "MLPLayers":
        """`outputs` adds a last linear layer without activation."""
        return MLPLayers(self, inputs=inputs, outputs=outputs, rngs=rngs)


class MLPLayers(nnx.Module):
    def __init__(self, config: MLP, *, inputs: int, outputs: int | None, rngs: nnx.Rngs):
        widths = (inputs, *config.widths)
        self.hidden = nnx.List([MLPBlock(config, inputs=i, outputs=o, rngs=rngs) for i, o in pairwise(widths)])
        self.out = None if outputs is None else linear(widths[-1], outputs=outputs, rngs=rngs)
        self.width = widths[-1] if outputs is None else outputs

    def __call__(
        self, x: Float[Array, "*b i"], *, mask: Bool[Array, "*b"] | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b o"]:
        """`mask` keeps padded positions out of the statistics of batch norm and Dice."""
        for block in self.hidden:
            x = block(x, mask=mask, rngs=rngs)
        return x if self.out is None else self.out(x)


# A click tower may see fifty batches a pass: at 0.99 its running statistics lag hundreds of steps behind its weights,
# and what an evaluation after each pass finds is the lag.
MOMENTUM = 0.9


class MLPBlock(nnx.Module):
    def __init__(self, config: MLP, *, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.linear = linear(inputs, outputs=outputs, rngs=rngs)
        self.kind = config.norm
        self.norm = _norm(config, width=outputs, rngs=rngs)
        self.activation = Activation(config.activation, width=outputs)
        self.dropout = Dropout(config.dropout)

    def __call__(
        self, x: Float[Array, "*b i"], *, mask: Bool[Array, "*b"] | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b o"]:
        if self.kind == "batch":
            kernel, bias = self.linear.kernel, self.linear.bias
            x = self.norm(x @ kernel[...], shift=bias[...], mask=mask, rngs=rngs)  # type: ignore[index]
        else:
            x = self.linear(x)
        if self.kind == "layer":
            x = self.norm(x)
        x = self.activation(x, mask=mask, rngs=rngs)
        return self.dropout(x, rngs=rngs)


def _norm(config: MLP, *, width: int, rngs: nnx.Rngs) -> BatchNorm | LayerNorm | None:
    if config.norm == "batch":
        return BatchNorm(width, momentum=MOMENTUM)
    return LayerNorm(width) if config.norm else None


def linear(inputs: int, *, outputs: int, bias: bool = True, rngs: nnx.Rngs) -> Linear:
    """Linear layer with Xavier-normal kernel, as the public CTR benchmarks start theirs."""
    return Linear(inputs, outputs, use_bias=bias, kernel_init=nnx.initializers.xavier_normal(), rngs=rngs)
