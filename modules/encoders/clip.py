"""The towers of CLIP (Radford et al., ICML 2021) and SigLIP (Zhai et al., ICCV 2023), as their weights were trained.

The projections into the shared space are those of `modules.content.image_text`, where CLIP has them; SigLIP's towers
end in that space themselves.
"""

from typing import Literal

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.encoders.text import TextEncoder, TextEncoderConfig, check_fit
from modules.encoders.vision import Details, ViT
from modules.layers.attention import visible
from modules.layers.gelu import Gelu
from modules.layers.linear import Linear
from modules.layers.positions import Positions, last_valid
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


@chz.chz
class CLIPVision(ViT):
    """ViT-B/32 of CLIP."""

    patch: int = 32
    dim: int = 768
    depth: int = 12
    heads: int = 12
    pool: Literal["mean", "map", "cls"] = "cls"

    details = Details(
        activation="quick",
        epsilon=1e-5,
        patch_bias=False,
        norm_first=True,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )


@chz.chz
class SigLIPVision(ViT):
    """ViT-B/16 of SigLIP."""

    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    pool: Literal["mean", "map", "cls"] = "map"

    details = Details(map_mlp=True)


@chz.chz
class CLIPText(TextEncoderConfig):
    dim: int = 512
    depth: int = 12
    heads: int = 8
    hidden: int | None = chz.field(default=None, doc="width of the MLPs; None: 4 x dim")
    vocabulary: int = chz.field(default=49408, doc="rows of the embedding, at least the tokenizer's tokens")
    positions: int = chz.field(default=77, doc="longest text that the weights know")

    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> "CLIPTextEncoder":
        check_fit(tokens=tokens, vocabulary=self.vocabulary, length=length, positions=self.positions)
        return CLIPTextEncoder(self, rngs=rngs)


class CLIPTextEncoder(TextEncoder):
    """A causal transformer; the text is what its last token, the end of the text, has seen."""

    def __init__(self, config: CLIPText, *, rngs: nnx.Rngs):
        self.width = config.dim
        self.tokens = TokenEmbedding(config.vocabulary, dim=config.dim, rngs=rngs)
        self.positions = Positions(config.positions, dim=config.dim, rngs=rngs)
        self.transformer = _transformer(config, activation="quick", epsilon=1e-5, rngs=rngs)

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        last = last_valid(self.states(ids, where=where, rngs=rngs), length=where.sum(axis=1))
        return jnp.where(where[:, :1], last, 0)

    def states(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        """The last layer's vectors."""
        x = self.positions(self.tokens(ids))
        return self.transformer(x, mask=visible(where), causal=True, rngs=rngs)


@chz.chz
class SigLIPText(TextEncoderConfig):
    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = chz.field(default=None, doc="width of the MLPs; None: 4 x dim")
    vocabulary: int = chz.field(default=32000, doc="rows of the embedding, at least the tokenizer's tokens")
    positions: int = chz.field(default=64, doc="what every text is padded to")
    padding: int = chz.field(default=1, doc="token that it is padded with")

    def make(self, *, tokens: int, length: int, rngs: nnx.Rngs) -> "SigLIPTextEncoder":
        check_fit(tokens=tokens, vocabulary=self.vocabulary, length=length, positions=self.positions)
        return SigLIPTextEncoder(self, rngs=rngs)


class SigLIPTextEncoder(TextEncoder):
    """Bidirectional over the padding too, which it was trained to see; the text is what the last position says."""

    def __init__(self, config: SigLIPText, *, rngs: nnx.Rngs):
        self.width, self.length, self.padding = config.dim, config.positions, config.padding
        self.tokens = TokenEmbedding(config.vocabulary, dim=config.dim, rngs=rngs)
        self.positions = Positions(config.positions, dim=config.dim, rngs=rngs)
        self.transformer = _transformer(config, activation="tanh", epsilon=1e-6, rngs=rngs)
        self.head = Linear(config.dim, config.dim, rngs=rngs)

    def __call__(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b d"]:
        last = self.head(self.states(ids, where=where, rngs=rngs)[:, -1])
        return jnp.where(where[:, :1], last, 0)

    def states(
        self, ids: Int[Array, "b t"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b p d"]:
        """The last layer's vectors, of the padding too."""
        ids = jnp.where(where, ids, self.padding)
        ids = jnp.pad(ids, ((0, 0), (0, self.length - ids.shape[1])), constant_values=self.padding)
        return self.transformer(self.positions(self.tokens(ids)), rngs=rngs)


def _transformer(config: CLIPText | SigLIPText, *, activation: Gelu, epsilon: float, rngs: nnx.Rngs) -> Transformer:
    return Transformer(
        config.dim,
        depth=config.depth,
        heads=config.heads,
        hidden=config.hidden,
        activation=activation,
        epsilon=epsilon,
        rngs=rngs,
    )
