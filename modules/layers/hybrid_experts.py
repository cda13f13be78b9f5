"""Hybrid-expert adaptor of KAR: knowledge of several origins, each by experts that all share and experts of its own.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024
(arXiv 2306.10933), section 3.3.
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.layers.linear import Linear

Kind = Literal["hybrid", "shared", "single"]


@chz.chz
class HybridExperts:
    shared: int = chz.field(default=2, doc="experts that all origins use")
    own: int = chz.field(default=3, doc="experts of each origin alone")
    hidden: int = chz.field(default=128, doc="of an expert")
    out: int = chz.field(default=32, doc="of each origin's adapted vector")
    kind: Kind = chz.field(
        default="hybrid", doc="shared: as many experts, all of everybody; single: one MLP of each origin, to compare"
    )

    def make(self, size: int, *, origins: int, rngs: nnx.Rngs) -> "HybridExpertsLayer":
        """For `origins` vectors of `size`."""
        return HybridExpertsLayer(self, size=size, origins=origins, rngs=rngs)


class HybridExpertsLayer(nnx.Module):
    """Σ_e softmax(G_o x)_e E_e(x) over the shared experts and those of origin o; E = ReLU(W ReLU(W x + b) + b)."""

    def __init__(self, config: HybridExperts, *, size: int, origins: int, rngs: nnx.Rngs):
        def experts(count: int) -> Stacked:
            return Stacked(count, size=size, hidden=config.hidden, out=config.out, rngs=rngs)

        common, own = config.shared, config.own
        if config.kind == "shared":
            common, own = config.shared + origins * config.own, 0
        if config.kind == "single":
            common, own = 0, 1
        self.common = experts(common) if common else None
        self.own = nnx.List([experts(own) for _ in range(origins)]) if own else None
        gates = [Linear(size, common + own, rngs=rngs) for _ in range(origins)] if common + own > 1 else []
        self.gates = nnx.List(gates)

    def __call__(self, x: Float[Array, "b s"], *, origin: int) -> Float[Array, "b o"]:
        parts = [] if self.common is None else [self.common(x)]
        parts += [] if self.own is None else [self.own[origin](x)]
        told = jnp.concatenate(parts, axis=1)
        if not self.gates:
            return told[:, 0]
        return jnp.einsum("be,beo->bo", jax.nn.softmax(self.gates[origin](x)), told)


class Stacked(nnx.Module):
    """Several MLPs of two layers at once."""

    def __init__(self, count: int, *, size: int, hidden: int, out: int, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal(batch_axis=(0,))
        self.up = nnx.Param(init(rngs.params(), (count, size, hidden)))
        self.up_bias = nnx.Param(jnp.zeros((count, hidden)))
        self.down = nnx.Param(init(rngs.params(), (count, hidden, out)))
        self.down_bias = nnx.Param(jnp.zeros((count, out)))

    def __call__(self, x: Float[Array, "b s"]) -> Float[Array, "b e o"]:
        h = jax.nn.relu(jnp.einsum("bs,esh->beh", x, self.up[...]) + self.up_bias[...][None])
        return jax.nn.relu(jnp.einsum("beh,eho->beo", h, self.down[...]) + self.down_bias[...][None])
