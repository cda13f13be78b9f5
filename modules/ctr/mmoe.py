"""MMoE: a mixture of shared experts for each task, by a gate of its own.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018. Equations
6 to 8: y_k = h^k(f^k(x)), f^k(x) = Σ_i g^k(x)_i f_i(x), g^k(x) = softmax(W_gk x).
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP, linear


@chz.chz
class MMoE(ModelConfig):
    heads: tuple[str, ...] = chz.field(default=("click", "purchase"), doc="tasks, by the name of their logit")
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    experts: int = chz.field(default=4, doc="n, shared by all tasks")
    expert: MLP = chz.field(default=MLP(widths=(128, 64)), doc="f_i")
    tower: MLP = chz.field(default=MLP(widths=(64,)), doc="h^k of each task")

    @chz.validate
    def _has_experts(self):
        if self.experts < 1:
            raise ValueError(f"experts is {self.experts}; a mixture needs at least 1")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "MMoEModel":
        return MMoEModel(self, features=features, rngs=rngs)


class MMoEModel(Model):
    def __init__(self, config: MMoE, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        width = self.embed.width()
        self.experts = nnx.List([config.expert.make(width, rngs=rngs) for _ in range(config.experts)])
        mixed = self.experts[0].width
        self.gates = nnx.Dict({h: linear(width, outputs=config.experts, bias=False, rngs=rngs) for h in config.heads})
        self.towers = nnx.Dict({h: config.tower.make(mixed, outputs=1, rngs=rngs) for h in config.heads})

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        x = self.embed.flat(batch)
        opinions = jnp.stack([expert(x, rngs=rngs) for expert in self.experts], axis=1)
        outputs: Outputs = {}
        for head, tower in self.towers.items():
            gate = jax.nn.softmax(self.gates[head](x), axis=-1)
            outputs[f"logit/{head}"] = tower(jnp.einsum("be,bed->bd", gate, opinions), rngs=rngs)[:, 0]
        return outputs
