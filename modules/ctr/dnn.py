"""DNN: an embedding of every field and a multi-layer perceptron.

Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 4 (ranking), as the
click benchmarks state it: x0 = [e_1; ...; e_F], logit = MLP(x0). Histories are averaged into one field each.
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP


@chz.chz
class DNN(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    mlp: MLP = MLP()

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DNNModel":
        return DNNModel(self, features=features, rngs=rngs)


class DNNModel(Model):
    def __init__(self, config: DNN, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.mlp = config.mlp.make(self.embed.width(), outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        return {"logit": self.mlp(self.embed.flat(batch), rngs=rngs)[:, 0]}
