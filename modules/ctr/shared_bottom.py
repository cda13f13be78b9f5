"""Shared bottom: one trunk, a small tower for each task.

Caruana, "Multitask Learning", Machine Learning 1997; as the baseline of Ma et al., "Modeling Task Relationships in
Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, equation 1: y_k = h^k(f(x)).
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP


@chz.chz
class SharedBottom(ModelConfig):
    heads: tuple[str, ...] = chz.field(default=("click", "purchase"), doc="tasks, by the name of their logit")
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    bottom: MLP = chz.field(default=MLP(widths=(256, 128)), doc="f")
    tower: MLP = chz.field(default=MLP(widths=(64,)), doc="h^k of each task")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "SharedBottomModel":
        return SharedBottomModel(self, features=features, rngs=rngs)


class SharedBottomModel(Model):
    def __init__(self, config: SharedBottom, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.bottom = config.bottom.make(self.embed.width(), rngs=rngs)
        self.towers = nnx.Dict({h: config.tower.make(self.bottom.width, outputs=1, rngs=rngs) for h in config.heads})

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        shared = self.bottom(self.embed.flat(batch), rngs=rngs)
        return {f"logit/{head}": tower(shared, rngs=rngs)[:, 0] for head, tower in self.towers.items()}
