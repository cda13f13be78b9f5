"""MOON: a product as a generative multimodal model sees it, in one space with what users ask for.

Zhang, Fu, Nie et al., "MOON: Generative MLLM-based Multimodal Representation Learning for E-commerce Product
Understanding", WSDM 2026, arXiv 2508.11999. Small scale, and where the paper could not be read a reconstruction:

    sequence   [V(picture)] [V(core of the picture)] [title] [category path] [attributes]
               V is a vision transformer whose patches are projected into the width of the language model; what is
               missing (a black picture, an empty text) is masked, and a query has a picture or a text alone
    language   causal blocks; in place of the MLP the guided mixture: E'(x) at tokens of the category, E''(x) at those
               of attributes, and at all others Σ_e g_e(x) E_e(x)
    embedding  mean over the last layer's tokens, at unit length; zeros where there is none
    negatives  the global batch (space), what a first-in-first-out bank holds of past batches (time), and another
               product of the positive's leaf
The core is found by what differs from the picture's border; theirs is a box that the language model gives by the title.
"""

from typing import Literal

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.vision import ViT
from modules.layers.attention import MultiHeadAttention, visible
from modules.layers.core_region import core_boxes, crop
from modules.layers.experts import balance_losses
from modules.layers.guided_experts import GENERAL, GuidedExperts, Kinds
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.memory_bank import MemoryBank
from modules.layers.one_pass import in_one_pass
from modules.layers.positions import Positions, mean_valid
from modules.layers.similarity import unit
from modules.layers.tokens import TokenEmbedding

QUERY, PRODUCT, OTHER = "query_", "", "other_"
CATEGORY, ATTRIBUTE = 1, 2
"""Kinds of token with an expert of their own."""


@chz.chz
class MOON(ModelConfig):
    """Outputs "query" and "item", and in training "bank" and "negatives", each with "<name>/known".

    A query's features are named as the product's with "query_" before them, a hard negative's with "other_".
    """

    dim: int = chz.field(default=64, doc="of the language model and of the embedding")
    depth: int = 2
    heads: int = 4
    hidden: int = chz.field(default=128, doc="width of an expert")
    vision: ViT = chz.field(default_factory=lambda: ViT(depth=1))
    core: bool = chz.field(default=True, doc="the core of each picture is read beside it")
    experts: GuidedExperts = chz.field(default_factory=GuidedExperts)
    pool: Literal["mean", "last"] = chz.field(default="mean", doc="last: a token of its own that ends the sequence")
    bank: int = chz.field(default=1024, doc="products of past batches that are negatives too; 0: none")
    key: str = chz.field(default="spu", doc="label of the bank: earlier listings of a query's product are no negatives")
    bank_after: int = chz.field(default=0, doc="batches before the bank counts, while vectors move fast")
    image: str = "image"
    title: str = "title"
    category: str = chz.field(default="path", doc="feature with the words of the category")
    attributes: str = chz.field(default="stated", doc="feature with the words of the attributes")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "MOONModel":
        return MOONModel(self, features=features, rngs=rngs)


class MOONModel(Model):
    def __init__(self, config: MOON, *, features: Features, rngs: nnx.Rngs):
        self.image, self.core, self.pool, self.key = config.image, config.core, config.pool, config.key
        self.texts = (config.title, config.category, config.attributes)
        words = [features[name] for name in self.texts]
        if len({feature.size for feature in words}) > 1:
            raise ValueError(f"MOON's texts share one vocabulary; got {[feature.size for feature in words]} tokens")
        self.lengths, dim = tuple(feature.max_len for feature in words), config.dim
        self.shape = features[config.image].shape
        self.vision = config.vision.make(self.shape, rngs=rngs)
        self.project = Linear(self.vision.width, dim, rngs=rngs)
        self.tokens = TokenEmbedding(words[0].size, dim=dim, rngs=rngs)
        self.positions = nnx.List([Positions(length, dim=dim, rngs=rngs) for length in self.lengths])
        self.segments = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (3 + len(words), dim)))
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.depth)])
        self.last = LayerNorm(dim, epsilon=1e-6)
        self.bank = MemoryBank(config.bank, dim=dim, after=config.bank_after) if config.bank else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        sides = (QUERY, PRODUCT) if rngs is None else (QUERY, PRODUCT, OTHER)
        given = {side: self._given(batch, side) for side in sides if self._names(side) & set(batch)}
        # The experts are balanced over queries and products together.
        found = in_one_pass(lambda parts: self.embed(parts, rngs=rngs), given)
        outputs = {out: found[side][0] for side, out in ((QUERY, "query"), (PRODUCT, "item")) if side in found}
        if rngs is None:
            return outputs
        if OTHER in found:
            outputs["negatives"], outputs["negatives/known"] = (x[:, None] for x in found[OTHER])
        if PRODUCT in found and self.bank is not None:
            held, filled, label = self.bank(outputs["item"], labels=batch.get(self.key), rngs=rngs)
            outputs["bank"], outputs["bank/known"] = held, filled & jnp.any(held != 0, axis=1)
            outputs["bank/label"] = label
        return {**outputs, **balance_losses(self)}

    def _names(self, side: str) -> set[str]:
        return {side + name for name in (self.image, *self.texts)}

    def _given(self, batch: Batch, side: str) -> Batch:
        """All parts of one side; those that it has no feature for are empty."""
        rows = next(batch[name] for name in sorted(self._names(side)) if name in batch).shape[0]
        image = batch.get(side + self.image)
        parts = {self.image: jnp.zeros((rows, *self.shape), jnp.uint8) if image is None else image}
        for name, length in zip(self.texts, self.lengths, strict=True):
            there = side + name in batch
            parts[name] = batch[side + name] if there else jnp.zeros((rows, length), jnp.int32)
            parts[f"{name}/length"] = batch[f"{side}{name}/length"] if there else jnp.zeros((rows,), jnp.int32)
        return parts

    def embed(self, batch: Batch, *, rngs: nnx.Rngs | None) -> tuple[Float[Array, "b d"], Bool[Array, "b"]]:
        """The embedding of each row, and whether it shows anything."""
        x, where, kinds = self.sequence(batch, rngs=rngs)
        for layer in self.layers:
            x = layer(x, where=where, kinds=kinds, rngs=rngs)
        x = self.last(x)
        if self.pool == "mean":
            return unit(mean_valid(x, where=where)), where.any(axis=1)
        known = where[:, :-1].any(axis=1)
        return unit(jnp.where(known[:, None], x[:, -1], 0)), known

    def sequence(
        self, batch: Batch, *, rngs: nnx.Rngs | None
    ) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"], Kinds]:
        """What the language model reads, what of it is there, and the kind of each position."""
        image = batch[self.image]
        seen = jnp.any(image != 0, axis=(1, 2, 3))
        pictures = [image, crop(image, boxes=core_boxes(image))] if self.core else [image]
        patches = self.project(self.vision.states(jnp.concatenate(pictures), rngs=rngs))
        parts = list(patches.reshape(len(pictures), -1, *patches.shape[1:]))
        where = [jnp.broadcast_to(seen[:, None], part.shape[:2]) for part in parts]
        for name, positions in zip(self.texts, self.positions, strict=True):
            parts.append(positions(self.tokens(batch[name])))
            where.append(valid(batch, name))
        segments = [0, 1][: len(pictures)] + [2, 3, 4]
        kinds = [GENERAL] * len(pictures) + [GENERAL, CATEGORY, ATTRIBUTE]
        if self.pool == "last":
            parts.append(jnp.zeros_like(parts[-1][:, :1]))
            where.append(jnp.ones_like(seen)[:, None])
            segments, kinds = [*segments, 5], [*kinds, GENERAL]
        x = [part + self.segments[segment][None, None] for part, segment in zip(parts, segments, strict=True)]
        at = tuple(kind for part, kind in zip(parts, kinds, strict=True) for _ in range(part.shape[1]))
        return jnp.concatenate(x, axis=1), jnp.concatenate(where, axis=1), at


class Layer(nnx.Module):
    """x + MHA(LN(x)), causal; x + guided mixture of (LN(x))."""

    def __init__(self, config: MOON, *, rngs: nnx.Rngs):
        dim = config.dim
        self.norm_attention = LayerNorm(dim, epsilon=1e-6)
        self.attention = MultiHeadAttention(dim, heads=config.heads, rngs=rngs)
        self.norm_experts = LayerNorm(dim, epsilon=1e-6)
        self.experts = config.experts.make(dim, own=2, hidden=config.hidden, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b t d"], *, where: Bool[Array, "b t"], kinds: Kinds, rngs: nnx.Rngs | None
    ) -> Float[Array, "b t d"]:
        x = x + self.attention(self.norm_attention(x), mask=visible(where), causal=True)
        return x + self.experts(self.norm_experts(x), kinds=kinds, where=where, training=rngs is not None)
