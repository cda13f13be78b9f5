"""DeepFM: a factorization machine and a deep tower on the same embeddings.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017. Equation 1:
logit = y_FM + y_DNN; equation 2 (FM), equations 3-4 (deep component), with no wide part to be engineered by hand.
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.ctr.fm import pairwise_products
from modules.ctr.lr import LR
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP


@chz.chz
class DeepFM(ModelConfig):
    dim: int = chz.field(default=16, doc="factors of a field; all fields have the same")
    embedding: Embedding = Embedding()
    mlp: MLP = MLP()

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DeepFMModel":
        return DeepFMModel(self, features=features, rngs=rngs)


class DeepFMModel(Model):
    def __init__(self, config: DeepFM, *, features: Features, rngs: nnx.Rngs):
        self.linear = LR(embedding=config.embedding).make(features, rngs=rngs)
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.mlp = config.mlp.make(self.embed.width(), outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        e = self.embed.fields(batch)
        fm = self.linear(batch)["logit"] + pairwise_products(e)
        return {"logit": fm + self.mlp(e.reshape(e.shape[0], -1), rngs=rngs)[:, 0]}
