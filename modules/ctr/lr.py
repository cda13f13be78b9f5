"""LR: logistic regression over all fields.

Richardson, Dominowska, Ragno, "Predicting Clicks: Estimating the Click-Through Rate for New Ads", WWW 2007:
logit = Σ_f w[x_f] + b. A numeric field adds weight times value; a history adds the mean weight of its positions.
"""

import chz
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding


@chz.chz
class LR(ModelConfig):
    embedding: Embedding = Embedding()

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "LRModel":
        return LRModel(self, features=features, rngs=rngs)


class LRModel(Model):
    def __init__(self, config: LR, *, features: Features, rngs: nnx.Rngs):
        # A weight is a vector of width 1, whatever widths the rest of a model gives its fields.
        options = chz.replace(config.embedding, widths={})
        self.embed = FeatureEmbedding(features, dim=1, options=options, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        return {"logit": self.embed.fields(batch).sum(axis=(1, 2)) + self.bias[...]}
