"""xDeepFM: a linear part, a deep part and a compressed interaction network (CIN).

Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems", KDD 2018.
Equation 6 (CIN layer), 7-8 (sum pooling and its concatenation), 9 (the sum of the three logits).
"""

import math

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.ctr.lr import LR
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP, linear

PAIRS = 512  # (feature map, field) pairs that are held at once


@chz.chz
class xDeepFM(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field; all fields have the same")
    embedding: Embedding = Embedding()
    cin: tuple[int, ...] = chz.field(default=(64, 64), doc="feature maps of each CIN layer; none: no CIN")
    mlp: MLP = MLP()

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "xDeepFMModel":
        return xDeepFMModel(self, features=features, rngs=rngs)


class xDeepFMModel(Model):
    def __init__(self, config: xDeepFM, *, features: Features, rngs: nnx.Rngs):
        self.linear = LR(embedding=config.embedding).make(features, rngs=rngs)
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.cin = CIN(len(self.embed.names), maps=config.cin, rngs=rngs) if config.cin else None
        self.mlp = config.mlp.make(self.embed.width(), outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        e = self.embed.fields(batch)
        logit = self.linear(batch)["logit"] + self.mlp(e.reshape(e.shape[0], -1), rngs=rngs)[:, 0]
        return {"logit": logit if self.cin is None else logit + self.cin(e)}


class CIN(nnx.Module):
    """X^k_h = Σ_ij W^k_hij (X^{k-1}_i ⊙ X^0_j), pooled over the embedding's axis and joined by a linear layer."""

    def __init__(self, fields: int, *, maps: tuple[int, ...], rngs: nnx.Rngs):
        init = nnx.initializers.xavier_normal(in_axis=(0, 1), out_axis=2)
        shapes = [(i, fields, h) for i, h in zip((fields, *maps[:-1]), maps, strict=True)]
        self.kernels = nnx.List([nnx.Param(init(rngs.params(), shape)) for shape in shapes])
        self.out = linear(sum(maps), outputs=1, rngs=rngs)

    def __call__(self, fields: Float[Array, "b f d"]) -> Float[Array, " b"]:
        x = x0 = fields.swapaxes(1, 2)  # with the maps last, a layer is one plain matrix product
        pooled = []
        for kernel in self.kernels:
            x = _layer(x, x0, kernel[...])
            pooled.append(x.sum(axis=1))
        return self.out(jnp.concatenate(pooled, axis=-1))[:, 0]


def _layer(x: Float[Array, "b d i"], x0: Float[Array, "b d j"], kernel: Float[Array, "i j h"]) -> Float[Array, "b d h"]:
    """Equation 6, a few fields j at a time: all pairs at once would take i * j / h times the memory of the result."""
    groups = math.ceil(x0.shape[-1] * x.shape[-1] / PAIRS)
    if groups <= 1:
        return _meet(x, x0, kernel)
    size = math.ceil(x0.shape[-1] / groups)
    groups = math.ceil(x0.shape[-1] / size)
    missing = groups * size - x0.shape[-1]  # fields of zeros
    x0 = jnp.pad(x0, ((0, 0), (0, 0), (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, missing), (0, 0)))
    # A loop, since the compiler would compute the products of all groups before it uses the first.
    parts = (
        jnp.moveaxis(x0.reshape(*x0.shape[:2], groups, size), 2, 0),
        jnp.moveaxis(kernel.reshape(kernel.shape[0], groups, size, -1), 1, 0),
    )
    total = jnp.zeros((*x.shape[:2], kernel.shape[-1]), x.dtype)
    return jax.lax.scan(lambda sum_, part: (sum_ + _meet(x, *part), None), total, parts)[0]


@jax.checkpoint
def _meet(x: Float[Array, "b d i"], x0: Float[Array, "b d j"], kernel: Float[Array, "i j h"]) -> Float[Array, "b d h"]:
    """The pairs are computed anew in the backward pass, which costs less than to keep them."""
    return jnp.einsum("bdij,ijh->bdh", x[..., :, None] * x0[..., None, :], kernel)
