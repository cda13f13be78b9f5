"""Composed retrieval: a picture r and words m that change it, for the picture t that is meant.

Survey: Zhang et al., "Composed Multi-modal Retrieval: A Survey of Approaches and Applications", 2025. The query is
q = φ(i, w) of i = f_I(r) and w = f_T(m), against f_I(t), where φ is
    tirg      g_1 σ(G [i; w]) ∘ i + g_2 R [i; w]   (Vo et al., "Composing Text and Image for Image Retrieval - An
              Empirical Odyssey", CVPR 2019, eqs. 2 to 4), G and R of two layers, g learned
    combiner  λ w + (1 - λ) i + R [i; w], λ = σ(G [i; w])   (Baldrati et al., "Conditioned and Composed Image Retrieval
              Combining and Partially Fine-Tuning CLIP-Based Features", CVPR workshops 2022)
    sum       i + w; image and text are i and w alone
    inversion f_T(S m) with a made-up word S = MLP(n(i)) before m: no triplet is needed, only an image-text model, which
              stays as it is, and pictures alone, each of whose words must find it: f_T(S) against f_I(t) (Saito et al.,
              "Pic2Word: Mapping Pictures to Words for Zero-shot Composed Image Retrieval", CVPR 2023, section 3)
Where the words or the picture (black) are missing, q is the other; with neither it is zero.
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.text import TextEncoder, TextEncoderConfig, TextTransformer, TextTransformerEncoder
from modules.encoders.vision import ImageEncoder, ViT
from modules.layers.linear import Linear
from modules.layers.mlp import MLP
from modules.layers.one_pass import in_one_pass
from modules.layers.similarity import Temperature, unit

Fusion = Literal["tirg", "combiner", "sum", "image", "text", "inversion"]


@chz.chz
class Composed(ModelConfig):
    """The composed query is "query", the picture meant "item".

    With fusion=inversion training reads `target` alone, and `length` must be that of the texts of the image-text model.
    """

    dim: int = chz.field(default=64, doc="of the shared space")
    fusion: Fusion = "tirg"
    vision: ImageEncoder = chz.field(default_factory=ViT, blueprint_unspecified=ViT)
    language: TextEncoderConfig = chz.field(default_factory=TextTransformer, blueprint_unspecified=TextTransformer)
    reference: str = chz.field(default="query_image", doc="feature with the picture to change")
    change: str = chz.field(default="change", doc="feature with the words that change it")
    target: str = chz.field(default="image", doc="feature with the picture that is meant")
    hidden: int = chz.field(default=128, doc="width inside of G and R, and of the MLP that makes up words")
    length: int | None = chz.field(
        default=None, doc="words that the language tower has positions for; None: those of a change"
    )
    scale: float = chz.field(default=10.0, doc="inverse temperature at the start; learned")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "ComposedModel":
        return ComposedModel(self, features=features, rngs=rngs)


class ComposedModel(Model):
    def __init__(self, config: Composed, *, features: Features, rngs: nnx.Rngs):
        self.reference, self.change, self.target = config.reference, config.change, config.target
        pictures, words = [features[n] for n in (config.reference, config.target)], features[config.change]
        if pictures[0].shape != pictures[1].shape:
            raise ValueError(
                f"one encoder reads {config.reference!r} and {config.target!r}: give them one shape, "
                f"not {pictures[0].shape} and {pictures[1].shape}"
            )
        self.vision = config.vision.make(pictures[0].shape, rngs=rngs)
        length = config.length or words.max_len
        self.language = config.language.make(tokens=words.size, length=length, rngs=rngs)
        self.image_out = Linear(self.vision.width, config.dim, use_bias=False, rngs=rngs)
        self.text_out = Linear(self.language.width, config.dim, use_bias=False, rngs=rngs)
        self.fusion: Fuse | Inversion
        if config.fusion == "inversion":
            if length <= words.max_len:
                raise ValueError(
                    f"a made-up word before {words.max_len} others needs model.length={length + 1} or more"
                )
            self.fusion = Inversion(self.language, dim=config.dim, hidden=config.hidden, rngs=rngs)
        else:
            self.fusion = Fuse(config.fusion, dim=config.dim, hidden=config.hidden, rngs=rngs)
        self.temperature = Temperature(config.scale)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        if isinstance(self.fusion, Inversion):
            return self._inverted(batch, rngs=rngs)
        outputs = self.temperature()
        composed = self.reference in batch and self.change in batch
        names = [self.reference] * composed + [self.target] * (self.target in batch)
        shown = in_one_pass(lambda images: self.pictures(images, rngs=rngs), {name: batch[name] for name in names})
        if composed:
            image, seen = shown[self.reference]
            said = valid(batch, self.change)
            text = self.text_out(self.language(batch[self.change], where=said, rngs=rngs))
            both = seen & said.any(axis=1)
            # What is missing is zero, so that the sum of both is the one that is there.
            outputs["query"] = unit(jnp.where(both[:, None], self.fusion(image, text), image + text))
        if self.target in shown:
            outputs["item"] = unit(shown[self.target][0])
        return outputs

    def _inverted(self, batch: Batch, *, rngs: nnx.Rngs | None) -> Outputs:
        """In training the query is the picture's own word, at inference the reference's with the change behind it."""
        outputs = self.temperature()
        if self.target in batch:
            image, _ = self.pictures(batch[self.target], rngs=rngs)
            outputs["item"] = unit(image)
        if rngs is not None:
            outputs["query"] = self._said(outputs["item"], batch[self.change], rngs=rngs, where=None)
        elif self.reference in batch and self.change in batch:
            image, seen = self.pictures(batch[self.reference], rngs=None)
            ids, where = batch[self.change], valid(batch, self.change)
            both = self._said(unit(image), ids, where=where, rngs=None)
            alone = unit(self.text_out(self.language(ids, where=where)))
            outputs["query"] = jnp.where(seen[:, None], both, alone)
        return outputs

    def _said(self, image, ids, *, where, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """The text of the picture's word and of the tokens, None of which count where `where` is None."""
        assert isinstance(self.language, TextTransformerEncoder) and isinstance(self.fusion, Inversion)
        where = jnp.zeros(ids.shape, bool) if where is None else where
        text = self.language.after(self.fusion.word(image), ids, where=where, rngs=rngs)
        return unit(self.text_out(text))

    def pictures(
        self, images: UInt8[Array, "b h w c"], *, rngs: nnx.Rngs | None
    ) -> tuple[Float[Array, "b d"], Bool[Array, "b"]]:
        """Vectors, zero for a black picture, which is none; and which are pictures."""
        there = jnp.any(images != 0, axis=(1, 2, 3))
        return jnp.where(there[:, None], self.image_out(self.vision(images, rngs=rngs)), 0), there


class Fuse(nnx.Module):
    """φ of a picture's and a text's vector."""

    def __init__(self, kind: Fusion, *, dim: int, hidden: int, rngs: nnx.Rngs):
        self.kind = kind
        if kind in ("tirg", "combiner"):
            layers = MLP(widths=(hidden,))
            self.gate = layers.make(2 * dim, outputs=dim if kind == "tirg" else 1, rngs=rngs)
            self.residual = layers.make(2 * dim, outputs=dim, rngs=rngs)
        self.weights = nnx.Param(jnp.ones(2)) if kind == "tirg" else None

    def __call__(self, image: Float[Array, "b d"], text: Float[Array, "b d"]) -> Float[Array, "b d"]:
        if self.kind == "image":
            return image
        if self.kind == "text":
            return text
        if self.kind == "sum":
            return image + text
        pair = jnp.concatenate([image, text], axis=1)
        gate, residual = jax.nn.sigmoid(self.gate(pair)), self.residual(pair)
        if self.weights is None:
            return gate * text + (1 - gate) * image + residual
        return self.weights[0] * gate * image + self.weights[1] * residual


class Inversion(nnx.Module):
    """A picture's vector as a word that the language tower reads like any other."""

    def __init__(self, language: TextEncoder, *, dim: int, hidden: int, rngs: nnx.Rngs):
        if not isinstance(language, TextTransformerEncoder):
            raise ValueError(f"{type(language).__name__} reads tokens alone; fusion=inversion needs TextTransformer")
        self.word = MLP(widths=(hidden, hidden)).make(dim, outputs=language.width, rngs=rngs)
