"""DCN V2: explicit feature crosses beside or before a multi-layer perceptron.

Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
WWW 2021. Equation 1 (cross layer), section "Cost-Effective Mixture of Low-Rank DCN", figure 1 (stacked, parallel).
"""

from typing import Literal

import chz
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.cross import CrossNetwork
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP, linear


@chz.chz
class DCNv2(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    structure: Literal["stacked", "parallel"] = chz.field(
        default="parallel", doc="stacked: MLP(cross(x0)); parallel: cross(x0) beside MLP(x0)"
    )
    depth: int = chz.field(default=3, doc="cross layers")
    rank: int | None = chz.field(default=None, doc="rank of the cross weights; default: full")
    experts: int = chz.field(default=1, doc="experts of a low-rank cross layer; needs rank")
    mlp: MLP = MLP()

    @chz.validate
    def _experts_are_low_rank(self):
        if self.experts > 1 and self.rank is None:
            raise ValueError("experts > 1 mixes low-rank cross layers: give rank as well")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DCNv2Model":
        return DCNv2Model(self, features=features, rngs=rngs)


class DCNv2Model(Model):
    def __init__(self, config: DCNv2, *, features: Features, rngs: nnx.Rngs):
        self.structure = config.structure
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        width = self.embed.width()
        self.cross = CrossNetwork(width, depth=config.depth, rank=config.rank, experts=config.experts, rngs=rngs)
        self.mlp = config.mlp.make(width, rngs=rngs)
        final = self.mlp.width + (width if config.structure == "parallel" else 0)
        self.out = linear(final, outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        x0 = self.embed.flat(batch)
        crossed = self.cross(x0)
        if self.structure == "stacked":
            final = self.mlp(crossed, rngs=rngs)
        else:
            final = jnp.concatenate([crossed, self.mlp(x0, rngs=rngs)], axis=-1)
        return {"logit": self.out(final)[:, 0]}
