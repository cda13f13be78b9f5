"""FinalMLP: two multi-layer perceptrons on differently gated features, fused by a bilinear layer.

Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023. Equations 2-4 (two streams over
gated features), 5-7 (bilinear fusion and its multi-head form), section "Stream-Specific Feature Selection". Without
gates and with the sum as fusion it is the paper's DualMLP.
"""

from collections.abc import Mapping
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP, linear


@chz.chz
class FinalMLP(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    mlp1: MLP = chz.field(default=MLP(), doc="first stream")
    mlp2: MLP = chz.field(default=MLP(), doc="second stream")
    gates: bool = chz.field(default=True, doc="each stream weighs the features by a gate of its own")
    gate_mlp: MLP = chz.field(default=MLP(widths=(64,)), doc="hidden layers of each gate")
    context1: tuple[str, ...] = chz.field(default=(), doc="features that gate 1 looks at; default: a learned vector")
    context2: tuple[str, ...] = chz.field(default=(), doc="features that gate 2 looks at; default: a learned vector")
    fusion: Literal["bilinear", "sum"] = chz.field(
        default="bilinear", doc="sum: the logits of both streams; bilinear: and the products of their last layers"
    )
    heads: int = chz.field(
        default=1, doc="chunks of the last layers that meet pairwise; 1: everything meets everything"
    )

    @chz.validate
    def _heads_divide_the_streams(self):
        for name, mlp in (("mlp1", self.mlp1), ("mlp2", self.mlp2)):
            if not mlp.widths:
                raise ValueError(f"{name}.widths is empty; a stream has at least one layer")
            if self.fusion == "bilinear" and mlp.widths[-1] % self.heads:
                raise ValueError(f"{name} ends in {mlp.widths[-1]} units, which do not divide into heads={self.heads}")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "FinalMLPModel":
        return FinalMLPModel(self, features=features, rngs=rngs)


class FinalMLPModel(Model):
    def __init__(self, config: FinalMLP, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        for name in (*config.context1, *config.context2):
            self.embed.slot(name)  # names the nearest if there is none
        width = self.embed.width()
        contexts = (config.context1, config.context2) if config.gates else ()
        self.gates = nnx.List(
            [FeatureGate(config, features=_named(features, c), outputs=width, rngs=rngs) for c in contexts]
        )
        self.mlp1 = config.mlp1.make(width, rngs=rngs)
        self.mlp2 = config.mlp2.make(width, rngs=rngs)
        heads = config.heads if config.fusion == "bilinear" else None
        self.fusion = Fusion((self.mlp1.width, self.mlp2.width), heads=heads, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        x = self.embed.flat(batch)
        x1, x2 = (x * gate(batch, rngs=rngs) for gate in self.gates) if self.gates else (x, x)
        return {"logit": self.fusion(self.mlp1(x1, rngs=rngs), self.mlp2(x2, rngs=rngs))}


class FeatureGate(nnx.Module):
    """Equation 3: 2σ(MLP(context)), one weight in (0, 2) per element of the flat features; logit 0 lets it pass as is.

    `features` are the context, read from tables of the gate's own; None: a learned vector. The gate has as many rows
    as its context, which is one where a request's user is all it looks at.
    """

    def __init__(self, config: FinalMLP, *, features: Features | None, outputs: int, rngs: nnx.Rngs):
        if features is None:
            self.embed = None
            # Not zeros: behind ReLUs with zero biases a zero vector would never get a gradient.
            normal = nnx.initializers.normal(config.embedding.std)
            self.context = nnx.Param(normal(rngs.params(), (config.dim,)))
            inputs = config.dim
        else:
            options = _options_for(config.embedding, features=features)
            self.embed = FeatureEmbedding(features, dim=config.dim, options=options, rngs=rngs)
            inputs = self.embed.width()
        self.mlp = config.gate_mlp.make(inputs, outputs=outputs, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Float[Array, "u d"]:
        context = self.context[...][None, :] if self.embed is None else self.embed.flat(batch)
        return 2 * jax.nn.sigmoid(self.mlp(context, rngs=rngs))


class Fusion(nnx.Module):
    """Equations 5 and 7: b + w_1ᵀ o_1 + w_2ᵀ o_2 + Σ_k o_1[k]ᵀ W_k o_2[k] over `heads` equal chunks of both streams.

    Without heads the products are left out, which sums the logits of two streams.
    """

    def __init__(self, widths: tuple[int, int], *, heads: int | None, rngs: nnx.Rngs):
        self.out1, self.out2 = (linear(w, outputs=1, rngs=rngs) for w in widths)
        init = nnx.initializers.xavier_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        shape = None if heads is None else (heads, *(w // heads for w in widths))
        self.products = None if shape is None else nnx.Param(init(rngs.params(), shape))

    def __call__(self, o1: Float[Array, "b m"], o2: Float[Array, "b n"]) -> Float[Array, " b"]:
        logit = self.out1(o1) + self.out2(o2)
        return (logit if self.products is None else logit + _bilinear(self.products[...], o1, o2))[:, 0]


def _bilinear(weights: Float[Array, "h p q"], o1: Float[Array, "b m"], o2: Float[Array, "b n"]) -> Float[Array, "b 1"]:
    """One batched product over heads into the narrower stream, where the rest is elementwise."""
    if weights.shape[1] < weights.shape[2]:
        o1, o2, weights = o2, o1, weights.swapaxes(1, 2)
    chunks = o1.reshape(o1.shape[0], *weights.shape[:2])
    met = jnp.einsum("bhm,hmn->bhn", chunks, weights).reshape(o2.shape)
    return (met * o2).sum(axis=-1, keepdims=True)


def _named(features: Features, names: tuple[str, ...]) -> Features | None:
    # To `select`, no names are all of them.
    return features.select(names=names) if names else None


def _options_for(options: Embedding, *, features: Features) -> Embedding:
    """Without what they say of other features, which the embedding would refuse."""
    here = {n for f in features for n in (f.name, f.table)}
    by_name = {k: v for k in chz.chz_fields(options) if isinstance(v := getattr(options, k), Mapping)}
    return chz.replace(options, **{k: {n: x for n, x in v.items() if n in here} for k, v in by_name.items()})
