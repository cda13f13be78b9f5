"""FM: factorization machine.

Rendle, "Factorization Machines", ICDM 2010, equation 1: logit = LR + Σ_{i<j} <e_i, e_j>, where e_f is the vector of
field f; by lemma 3.1 the pairs sum to ½ Σ_k [(Σ_f e_fk)² - Σ_f e_fk²] in linear time.
"""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.ctr.lr import LR
from modules.layers.embedding import Embedding, FeatureEmbedding


@chz.chz
class FM(ModelConfig):
    dim: int = chz.field(default=16, doc="factors of a field; all fields have the same")
    embedding: Embedding = Embedding()

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "FMModel":
        return FMModel(self, features=features, rngs=rngs)


class FMModel(Model):
    def __init__(self, config: FM, *, features: Features, rngs: nnx.Rngs):
        self.linear = LR(embedding=config.embedding).make(features, rngs=rngs)
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        return {"logit": self.linear(batch)["logit"] + pairwise_products(self.embed.fields(batch))}


def pairwise_products(fields: Float[Array, "b f d"]) -> Float[Array, " b"]:
    """Σ_{i<j} <e_i, e_j>."""
    return 0.5 * (jnp.square(fields.sum(axis=1)) - jnp.square(fields).sum(axis=1)).sum(axis=-1)
