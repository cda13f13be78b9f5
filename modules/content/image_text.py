"""Picture and title in one space: CLIP (Radford et al., ICML 2021), and SigLIP (Zhai et al., ICCV 2023).

Two encoders, a linear projection of each, unit length, a learned temperature; `bias` adds the offset that the
sigmoid loss learns (SigLIP, section 3.2). The title is the query, the picture the item.

An encoder that stays as published need not run in training (LiT, Zhai et al., CVPR 2022, locks a tower likewise): its
vectors, made beforehand, enter as the features `vector` and `image_vector`, through a linear layer, with `mlp` beside
it, and are added to what `language` and `vision` say, which learn from this shop alone; without those they are all that
the model knows.
"""

import chz
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.text import TextEncoderConfig, TextTransformer
from modules.encoders.vision import ImageEncoder, ViT
from modules.layers.dropout import Dropout
from modules.layers.experts import balance_losses
from modules.layers.linear import Linear
from modules.layers.mlp import MLP
from modules.layers.norm import BatchNorm
from modules.layers.similarity import Temperature, unit


@chz.chz
class ImageText(ModelConfig):
    dim: int | None = chz.field(default=64, doc="of the shared space; None: the encoders end in it themselves (SigLIP)")
    vision: ImageEncoder | None = chz.field(
        default_factory=ViT, blueprint_unspecified=ViT, doc="None: the picture's `image_vector` alone"
    )
    language: TextEncoderConfig | None = chz.field(
        default_factory=TextTransformer, blueprint_unspecified=TextTransformer, doc="None: the title's `vector` alone"
    )
    vector: str | None = chz.field(default=None, doc="dense feature with the title's vector by a frozen encoder")
    image_vector: str | None = chz.field(
        default=None, doc="dense feature with the picture's vector by a frozen encoder; each number by its own spread"
    )
    mlp: MLP | None = chz.field(default=None, doc="of such vectors, beside the linear layer; None: that alone")
    drop_image_vector: float = chz.field(
        default=0.0, doc="share of the numbers of `image_vector` that a training step leaves out"
    )
    image: str = chz.field(default="image", doc="feature with the picture")
    text: str = chz.field(default="title", doc="feature with the tokens")
    scale: float = chz.field(default=10.0, doc="inverse temperature at the start; learned")
    bias: float | None = chz.field(
        default=None, doc="start of the sigmoid loss's learned offset, say -10; None: no offset"
    )

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "ImageTextModel":
        return ImageTextModel(self, features=features, rngs=rngs)


class ImageTextModel(Model):
    def __init__(self, config: ImageText, *, features: Features, rngs: nnx.Rngs):
        text = features[config.text]
        if text.kind != "text":
            raise ValueError(f"ImageText's text is {config.text!r}, a feature of kind {text.kind}")
        self.image_name, self.text_name = config.image, config.text
        self.vision = None if config.vision is None else config.vision.of(features[config.image], rngs=rngs)
        told = config.language
        self.language = None if told is None else told.make(tokens=text.size, length=text.max_len, rngs=rngs)
        if self.language is None and config.vector is None:
            raise ValueError("ImageText reads no title: give model.language, model.vector, or both")
        if self.vision is None and config.image_vector is None:
            raise ValueError("ImageText sees no picture: give model.vision, model.image_vector, or both")
        seen, width = (None if tower is None else tower.width for tower in (self.vision, self.language))
        beforehand = config.vector is not None or config.image_vector is not None
        if config.dim is None and (beforehand or seen != width):
            raise ValueError(f"vectors of {seen} and {width} share no space: give model.dim")
        self.image_out = None if seen is None else _projection(seen, config.dim, rngs=rngs)
        self.text_out = None if width is None else _projection(width, config.dim, rngs=rngs)
        self.vector_name, self.image_vector_name = config.vector or "", config.image_vector or ""
        self.vector = _beforehand(config.vector, config=config, features=features, rngs=rngs)
        self.image_vector = _beforehand(
            config.image_vector, config=config, features=features, normal=True, drop=config.drop_image_vector, rngs=rngs
        )
        self.temperature = Temperature(config.scale, bias=config.bias)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs = self.temperature()
        if (title := self.titles(batch, rngs=rngs)) is not None:
            outputs["query"] = unit(title)
        if (picture := self.pictures(batch, rngs=rngs)) is not None:
            outputs["item"] = unit(picture)
        return outputs if rngs is None else {**outputs, **balance_losses(self)}

    def titles(self, batch: Batch, *, rngs: nnx.Rngs | None) -> Float[Array, "b d"] | None:
        """By what the model reads of tokens and vectors made beforehand; None where the batch lacks some of it."""
        if _lacks(batch, ((self.text_name, self.language), (self.vector_name, self.vector))):
            return None
        parts = []
        if self.language is not None:
            text = self.language(batch[self.text_name], where=valid(batch, self.text_name), rngs=rngs)
            parts.append(text if self.text_out is None else self.text_out(text))
        if self.vector is not None:
            parts.append(self.vector(batch[self.vector_name], rngs=rngs))
        return sum(parts[1:], start=parts[0])

    def pictures(self, batch: Batch, *, rngs: nnx.Rngs | None) -> Float[Array, "b d"] | None:
        """As `titles`, of pixels and vectors made beforehand."""
        if _lacks(batch, ((self.image_name, self.vision), (self.image_vector_name, self.image_vector))):
            return None
        parts = []
        if self.vision is not None:
            image = self.vision(batch[self.image_name], rngs=rngs)
            parts.append(image if self.image_out is None else self.image_out(image))
        if self.image_vector is not None:
            parts.append(self.image_vector(batch[self.image_vector_name], rngs=rngs))
        return sum(parts[1:], start=parts[0])


class Beforehand(nnx.Module):
    """A vector made beforehand into the space.

    Without a `norm`, for which means of a layer's outputs ask, since they differ in size by their channels, all vectors
    become as long as what a layer norm leaves: published ones come in any length.
    """

    def __init__(self, size: int, *, config: ImageText, norm: BatchNorm | None, drop: float, rngs: nnx.Rngs):
        self.size, self.norm, self.dropout = size, norm, Dropout(drop)
        outputs = config.dim or 0
        self.out = Linear(size, outputs, use_bias=False, rngs=rngs)
        self.mlp = None if config.mlp is None else config.mlp.make(size, outputs=outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "b i"], *, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        x = unit(x) * self.size**0.5 if self.norm is None else self.norm(x, rngs=rngs)
        x = self.dropout(x, rngs=rngs)
        return self.out(x) if self.mlp is None else self.out(x) + self.mlp(x, rngs=rngs)


def _beforehand(
    name: str | None,
    *,
    config: ImageText,
    features: Features,
    normal: bool = False,
    drop: float = 0.0,
    rngs: nnx.Rngs,
) -> Beforehand | None:
    if name is None:
        return None
    size = features[name].shape[-1]
    return Beforehand(size, config=config, norm=BatchNorm(size) if normal else None, drop=drop, rngs=rngs)


def _lacks(batch: Batch, readers: tuple[tuple[str, nnx.Module | None], ...]) -> bool:
    return any(reader is not None and name not in batch for name, reader in readers)


def _projection(width: int, dim: int | None, *, rngs: nnx.Rngs) -> Linear | None:
    return None if dim is None else Linear(width, dim, use_bias=False, rngs=rngs)
