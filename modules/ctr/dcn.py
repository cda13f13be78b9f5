"""DCN: a network of vector crosses beside a multi-layer perceptron.

Wang, Fu, Fu, Wang, "Deep & Cross Network for Ad Click Predictions", ADKDD 2017. Equations 2-3 (cross layer), 4 (deep
layer), 5 (combination: a linear layer on both side by side).
"""

import chz
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.cross import VectorCross
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP, linear


@chz.chz
class DCN(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    depth: int = chz.field(default=3, doc="cross layers")
    mlp: MLP = MLP()

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DCNModel":
        return DCNModel(self, features=features, rngs=rngs)


class DCNModel(Model):
    def __init__(self, config: DCN, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        width = self.embed.width()
        self.cross = VectorCross(width, depth=config.depth, rngs=rngs)
        self.mlp = config.mlp.make(width, rngs=rngs)
        self.out = linear(width + self.mlp.width, outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        x0 = self.embed.flat(batch)
        return {"logit": self.out(jnp.concatenate([self.cross(x0), self.mlp(x0, rngs=rngs)], axis=-1))[:, 0]}
