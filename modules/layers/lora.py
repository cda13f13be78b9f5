"""LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., ICLR 2022), around any model.

W x becomes W x + (α / r) B A x (section 4.1), with B = 0 at the start. The parameters of the model keep their paths;
the pairs stand beside their kernels, as `lora_a` and `lora_b`. What else learns is the optimizer's affair:
`optimizer.lr_scale` with ("lora_", 1.0) and then ("^language/", 0.0) trains the pairs of a tower alone.
"""

import re
from collections.abc import Mapping
from typing import Any

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Features, Model, ModelConfig
from modules.layers.linear import Linear

A, B, KERNEL = "lora_a", "lora_b", "kernel"


@chz.chz
class LoRA(ModelConfig):
    model: ModelConfig = chz.field(doc="what is adapted")
    match: str = chz.field(default=r"attention/(query|value)/kernel$", doc="regex of the kernels that get a pair")
    rank: int = 8
    alpha: float = chz.field(default=16.0, doc="a pair's product counts alpha / rank")

    @chz.validate
    def _check(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; give at least 1")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def make(self, features: Features, *, rngs: nnx.Rngs) -> Model:
        model = self.model.make(features, rngs=rngs)
        adapt(model, config=self, rngs=rngs)
        return model

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of `model` alone, with every pair's product added to its kernel."""
        out = {name: value for name, value in params.items() if not name.endswith((A, B))}
        for name in params:
            if name.endswith(f"/{A}"):
                at = name.removesuffix(A)
                out[at + KERNEL] = out[at + KERNEL] + self.scale * (params[name] @ params[at + B])
        return out


def adapt(model: nnx.Module, *, config: LoRA, rngs: nnx.Rngs) -> None:
    """Puts an adapted layer in place of each linear layer of `model` whose kernel matches."""
    owners = dict(nnx.iter_modules(model))
    params = [path for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Param)]
    found = [path for path in params if re.search(config.match, _name(path))]
    if not found:
        raise ValueError(f"lora: {config.match!r} matches no parameter")
    for path in found:
        linear = owners.get(path[:-1])
        if type(linear) is not Linear or path[-1] != KERNEL:
            raise ValueError(f"lora: {_name(path)} is no kernel of a linear layer; leave it out of match")
        *above, last = path[:-1]
        layer = LoRALinear(linear, rank=config.rank, scale=config.scale, rngs=rngs)
        if isinstance(last, int):
            owners[tuple(above)][last] = layer  # type: ignore[index]
        else:
            setattr(owners[tuple(above)], str(last), layer)


class LoRALinear(nnx.Module):
    """A linear layer and its pair."""

    def __init__(self, linear: Linear, *, rank: int, scale: float, rngs: nnx.Rngs):
        inputs, outputs = linear.kernel.shape
        self.kernel, self.bias = AdaptedKernel(linear.kernel.get_value()), linear.bias
        self.lora_a = nnx.Param(nnx.initializers.he_uniform()(rngs.params(), (inputs, rank)))
        self.lora_b = nnx.Param(jnp.zeros((rank, outputs)))
        self.scale = scale

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        rows = x.reshape(-1, x.shape[-1])  # as in `Linear`
        y = rows @ self.kernel.get_value() + self.scale * ((rows @ self.lora_a[...]) @ self.lora_b[...])
        return (y if self.bias is None else y + self.bias[...][None]).reshape(*x.shape[:-1], -1)


class AdaptedKernel(nnx.Param):
    """Some layers read another's kernel in place of calling it; that would pass its pair by."""

    def __getitem__(self, key: Any) -> Any:
        raise ValueError("lora: a kernel that matches is read without its layer; leave it out of match")


def _name(path: tuple) -> str:
    return "/".join(map(str, path))
