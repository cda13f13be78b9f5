"""AutoInt: feature interactions by multi-head self-attention across fields.

Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM 2019. Equations
5-8 (one interacting layer), 9 (output), section 5.4 (AutoInt+, with a deep part beside).
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.dropout import Dropout
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.field_attention import LayerNorm, meet, mix
from modules.layers.mlp import MLP, linear


@chz.chz
class AutoInt(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field; all fields have the same")
    embedding: Embedding = Embedding()
    layers: int = chz.field(default=3, doc="interacting layers")
    heads: int = chz.field(default=2, doc="kinds of interaction that a layer looks for")
    width: int = chz.field(default=64, doc="units of a field after a layer, of all heads together")
    residual: Literal["projected", "identity"] | None = chz.field(
        default="projected",
        doc="projected: W_Res e, as in the paper; identity: e itself where the widths agree, as in the benchmarks",
    )
    scale: bool = chz.field(default=False, doc="attention logits over the root of a head's width; not in the paper")
    layer_norm: bool = chz.field(default=False, doc="layer norm between residual and activation; not in the paper")
    dropout: float = chz.field(default=0.0, doc="of attention weights")
    mlp: MLP | None = chz.field(
        default=None, blueprint_unspecified=MLP, doc="AutoInt+: a deep part whose logit is added"
    )

    @chz.validate
    def _heads_divide_the_width(self):
        if self.width % self.heads:
            raise ValueError(f"width={self.width} does not divide into heads={self.heads}")
        if self.layers < 1:
            raise ValueError(f"layers={self.layers}; give at least 1")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "AutoIntModel":
        return AutoIntModel(self, features=features, rngs=rngs)


class AutoIntModel(Model):
    def __init__(self, config: AutoInt, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        widths = (config.dim,) + (config.width,) * (config.layers - 1)
        self.attention = nnx.List([FieldAttention(w, config=config, rngs=rngs) for w in widths])
        self.out = linear(len(self.embed.names) * config.width, outputs=1, rngs=rngs)
        self.mlp = None if config.mlp is None else config.mlp.make(self.embed.width(), outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        e = x = self.embed.fields(batch)
        for layer in self.attention:
            x = layer(x, rngs=rngs)
        logit = self.out(x.reshape(x.shape[0], -1))
        if self.mlp is not None:
            logit = logit + self.mlp(e.reshape(e.shape[0], -1), rngs=rngs)
        return {"logit": logit[:, 0]}


class FieldAttention(nnx.Module):
    """Equations 5-8: ReLU(ẽ_m + W_Res e_m), where head h of ẽ_m is Σ_k softmax_k(<W_Q e_m, W_K e_k>) W_V e_k."""

    def __init__(self, inputs: int, *, config: AutoInt, rngs: nnx.Rngs):
        self.heads, self.width = config.heads, config.width
        self.factor = (config.width // config.heads) ** -0.5 if config.scale else 1.0
        projected = config.residual == "projected" or (config.residual == "identity" and inputs != config.width)
        self.parts = 4 if projected else 3
        self.identity = config.residual == "identity" and not projected
        init = nnx.initializers.xavier_normal()
        # Query, key, value and residual side by side: one matrix product reads the fields once.
        kernels = [init(rngs.params(), (inputs, config.width)) for _ in range(self.parts)]
        self.kernel = nnx.Param(jnp.concatenate(kernels, axis=1))
        self.norm = LayerNorm(config.width) if config.layer_norm else None
        self.dropout = Dropout(config.dropout)

    def __call__(self, x: Float[Array, "b f i"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "b f w"]:
        b, f, _ = x.shape
        (query, key, value), residual = self._project(x)
        weights = self.dropout(self._weights(query, key), rngs=rngs)
        mixed = mix(weights, value).swapaxes(1, 2).reshape(b * f, self.width)
        if residual is not None:
            mixed = mixed + residual
        if self.norm is not None:
            mixed = self.norm(mixed)
        return jax.nn.relu(mixed).reshape(b, f, self.width)

    def weights(self, x: Float[Array, "b f i"]) -> Float[Array, "b h f f"]:
        """How much field m (third axis) takes from field k (last axis)."""
        query, key, _ = self._project(x)[0]
        return self._weights(query, key)

    def _project(self, x: Float[Array, "b f i"]) -> tuple[Float[Array, "3 b h f e"], Float[Array, "n w"] | None]:
        """Query, key and value of each head, and what is added after attention."""
        b, f, inputs = x.shape
        rows = x.reshape(b * f, inputs)
        parts = rows @ self.kernel[...]
        attended = parts[:, : 3 * self.width].reshape(b, f, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        residual = parts[:, 3 * self.width :] if self.parts == 4 else rows if self.identity else None
        # One copy into this order; left to itself the compiler makes one for every use.
        return jax.lax.optimization_barrier(attended), residual

    def _weights(self, query: Float[Array, "b h f e"], key: Float[Array, "b h f e"]) -> Float[Array, "b h f f"]:
        logits = meet(query * self.factor, key)
        return jax.nn.softmax(logits.astype(jnp.float32)).astype(query.dtype)
