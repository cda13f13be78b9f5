"""PRESTO as the head of a click tower: ordered steps of a funnel, the rare last one leaning on those before.

Faletto and Bien, "Predicting Rare Events by Shrinking Towards Proportional Odds", ICML 2023, with x a learned
representation in place of covariates: logit P(the user gets as far as step k) = a_k + x·b_k, with an ℓ1 penalty on
b_k - b_{k-1}. The paper's sign is the opposite (P(y <= k)), which changes nothing. β_1 is not penalised: the
representation has no scale of its own that shrinking it to nothing would be measured against.
"""

import chz
import jax.numpy as jnp
from flax import nnx

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP
from modules.losses.ordinal import slopes, smooth_absolute


@chz.chz
class Presto(ModelConfig):
    steps: tuple[str, ...] = chz.field(default=("click", "cart", "purchase"), doc="from the commonest to the rarest")
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    mlp: MLP = chz.field(default=MLP(widths=(200, 80)), doc="x")
    strength: float = chz.field(default=1e-4, doc="λ, of the differences of adjacent slopes; 0: unlinked")

    @chz.validate
    def _has_steps(self):
        if not self.steps:
            raise ValueError("give at least one step of the funnel")
        if self.strength < 0:
            raise ValueError(f"strength is {self.strength}; a penalty is at least 0")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "PrestoModel":
        return PrestoModel(self, features=features, rngs=rngs)


class PrestoModel(Model):
    def __init__(self, config: Presto, *, features: Features, rngs: nnx.Rngs):
        self.steps, self.strength = config.steps, config.strength
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.mlp = config.mlp.make(self.embed.width(), rngs=rngs)
        count, width = len(config.steps), self.mlp.width
        # Steps begin apart: each is likelier than the next.
        self.intercepts = nnx.Param(-2.0 * jnp.arange(1.0, count + 1))
        first = nnx.initializers.xavier_normal()(rngs.params(), (1, width))
        self.psi = nnx.Param(jnp.concatenate([first, jnp.zeros((count - 1, width))]))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        x = self.mlp(self.embed.flat(batch), rngs=rngs)
        logits = self.intercepts[...][None, :] + x @ slopes(self.psi[...]).T
        outputs: Outputs = {f"logit/{step}": logits[:, k] for k, step in enumerate(self.steps)}
        penalty = smooth_absolute(self.psi[...][1:].astype(jnp.float32)).sum()
        return {**outputs, AUX_LOSS + "slopes": self.strength * penalty} if self.strength else outputs
