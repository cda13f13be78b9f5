"""ESMM: conversion after a click, learned from all impressions.

Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate", SIGIR
2018. Equation 2: pCTCVR = pCTR x pCVR; equation 3: the losses of click and of click-and-conversion over the entire
space, none of conversion alone, whose label only clicked impressions have. The towers share the embedding alone.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP


@chz.chz
class ESMM(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    mlp: MLP = chz.field(default=MLP(widths=(200, 80)), doc="of the click tower and of the conversion tower")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "ESMMModel":
        return ESMMModel(self, features=features, rngs=rngs)


class ESMMModel(Model):
    def __init__(self, config: ESMM, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.click = config.mlp.make(self.embed.width(), outputs=1, rngs=rngs)
        self.conversion = config.mlp.make(self.embed.width(), outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """`purchase`: click and conversion, of all impressions. `cvr`: conversion if clicked."""
        x = self.embed.flat(batch)
        click, cvr = self.click(x, rngs=rngs)[:, 0], self.conversion(x, rngs=rngs)[:, 0]
        return {"logit/click": click, "logit/purchase": both(click, cvr), "logit/cvr": cvr}


def both(a: Float[Array, " b"], b: Float[Array, " b"]) -> Float[Array, " b"]:
    """The logit of σ(a) σ(b), without leaving the logarithm: log p - log(1 - p)."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    log_p = jax.nn.log_sigmoid(a) + jax.nn.log_sigmoid(b)
    # 1 - σ(a) σ(b) = σ(-a) + σ(a) σ(-b)
    log_rest = jnp.logaddexp(jax.nn.log_sigmoid(-a), jax.nn.log_sigmoid(a) + jax.nn.log_sigmoid(-b))
    return log_p - log_rest
