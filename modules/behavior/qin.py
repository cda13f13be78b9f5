"""QIN: Quadratic Interest Network.

Li et al., "Quadratic Interest Network for Multimodal Click-Through Rate Prediction", WWW 2025 (EReL@MIR), arXiv
2504.17699. Adaptive sparse target attention (ReLU in place of softmax: a weight may be zero, and their sum tells how
much of the history is alike) and the quadratic neural network.
"""

import math

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.attend import Normalise, attend
from modules.layers.behaviours import Behaviours, Pairs
from modules.layers.dropout import Dropout
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP, MLPLayers, linear
from modules.layers.norm import BatchNorm


@chz.chz
class QIN(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field; the paper's is 128")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    inner: float = chz.field(default=2.0, doc="width of the attention's projections, as a multiple of a behaviour's")
    normalise: Normalise = chz.field(default="relu", doc="relu is the paper's; softmax forgets the intensity")
    layers: int = chz.field(default=4, doc="quadratic layers")
    rank: int = chz.field(default=4, doc="R: linear maps that a quadratic layer sums; 4 is the paper's, 3 the safe one")
    dropout: float = chz.field(default=0.1, doc="of the maps and of each quadratic layer")
    mlp: MLP | None = chz.field(default=None, doc="a plain tower instead of the quadratic layers, to compare with")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "QINModel":
        return QINModel(self, features=features, rngs=rngs)


class QINModel(Model):
    def __init__(self, config: QIN, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=features, embed=self.embed, joint=config.joint)
        widths = self.behaviours.widths
        self.attention = nnx.List(
            [
                SparseTargetAttention(w, inner=round(config.inner * w), normalise=config.normalise, rngs=rngs)
                for w in widths
            ]
        )
        width = self.embed.width(*self.behaviours.others) + sum(widths)
        self.network: MLPLayers | QuadraticNetwork = (
            config.mlp.make(width, outputs=1, rngs=rngs)
            if config.mlp is not None
            else QuadraticNetwork(width, layers=config.layers, rank=config.rank, dropout=config.dropout, rngs=rngs)
        )

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts = list(others.values())
        for b, attention in zip(self.behaviours.read(vectors, batch=batch), self.attention, strict=True):
            parts.append(attention(b.history, target=b.target, mask=b.mask))
        return {"logit": self.network(side_by_side(parts), rngs=rngs)[:, 0]}


class SparseTargetAttention(nnx.Module):
    """W_o Σ_j a_j W_v s_j + t, where a_j = ReLU(⟨W_q t, W_k s_j⟩ / √inner)."""

    def __init__(self, width: int, *, inner: int, normalise: Normalise, rngs: nnx.Rngs):
        self.normalise: Normalise = normalise
        self.scale = 1 / math.sqrt(inner)
        self.query = linear(width, outputs=inner, bias=False, rngs=rngs)
        self.key = linear(width, outputs=inner, bias=False, rngs=rngs)
        self.value = linear(width, outputs=inner, bias=False, rngs=rngs)
        self.out = linear(inner, outputs=width, bias=False, rngs=rngs)

    def __call__(
        self, history: Float[Array, "u t d"], *, target: Float[Array, "b d"], mask: Bool[Array, "u t"]
    ) -> Float[Array, "b d"]:
        # The maps are linear, so W_k acts on the target and W_v on the sum: no behaviour is projected.
        query = self.query(target) @ self.key.kernel[...].T
        pooled = attend(query, keys=history, values=history, mask=mask, normalise=self.normalise, scale=self.scale)
        return self.out(self.value(pooled)) + target


class QuadraticNetwork(nnx.Module):
    """Quadratic layers, each with batch norm, PReLU, dropout and a residual, and a linear head."""

    def __init__(self, width: int, *, layers: int, rank: int, dropout: float, rngs: nnx.Rngs):
        self.layers = nnx.List([QuadraticLayer(width, rank=rank, dropout=dropout, rngs=rngs) for _ in range(layers)])
        self.norms = nnx.List([BatchNorm(width, momentum=0.9) for _ in range(layers)])
        self.slopes = nnx.List([nnx.Param(jnp.full((), 0.25)) for _ in range(layers)])
        self.dropout = Dropout(dropout)
        self.head = linear(width, outputs=1, rngs=rngs)

    def __call__(self, x: Float[Array, "b d"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b 1"]:
        for layer, norm, slope in zip(self.layers, self.norms, self.slopes, strict=True):
            y = norm(layer(x, rngs=rngs), rngs=rngs)
            y = jnp.where(y > 0, y, slope[...] * y)
            x = x + self.dropout(y, rngs=rngs)
        return self.head(x)


class QuadraticLayer(nnx.Module):
    """y = x ⊙ Σ_r Dropout(W_r x + b_r). Without dropout the R maps are one, the sum of them."""

    def __init__(self, width: int, *, rank: int, dropout: float, rngs: nnx.Rngs):
        self.rank = rank
        self.linear = linear(width, outputs=rank * width, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(self, x: Float[Array, "b d"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b d"]:
        if rngs is None or not self.dropout.rate:
            kernel, bias = self.linear.kernel[...].reshape(x.shape[-1], self.rank, -1), self.linear.bias
            assert bias is not None
            return x * (x @ kernel.sum(axis=1) + bias[...].reshape(self.rank, -1).sum(axis=0)[None, :])
        maps = self.dropout(self.linear(x), rngs=rngs)
        return x * maps.reshape(x.shape[0], self.rank, x.shape[1]).sum(axis=1)
