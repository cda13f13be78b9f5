"""Picture and title in one space: CLIP (Radford et al., ICML 2021), and SigLIP (Zhai et al., ICCV 2023).

Two encoders, a linear projection of each, unit length, a learned temperature; `bias` adds the offset that the
sigmoid loss learns (SigLIP, section 3.2). The title is the query, the picture the item.

A text encoder that stays as published need not run in training (LiT, Zhai et al., CVPR 2022, locks a tower likewise):
its vectors, made beforehand, enter as the feature `vector`, through a linear layer and added to what `language` says,
whose words are this shop's own; without a `language` they are all that the query knows.
"""

import chz
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.text import TextEncoderConfig, TextTransformer
from modules.encoders.vision import ImageEncoder, ViT
from modules.layers.experts import balance_losses
from modules.layers.linear import Linear
from modules.layers.similarity import Temperature, unit


@chz.chz
class ImageText(ModelConfig):
    dim: int | None = chz.field(default=64, doc="of the shared space; None: the encoders end in it themselves (SigLIP)")
    vision: ImageEncoder = chz.field(default_factory=ViT, blueprint_unspecified=ViT)
    language: TextEncoderConfig | None = chz.field(
        default_factory=TextTransformer, blueprint_unspecified=TextTransformer, doc="None: the title's `vector` alone"
    )
    vector: str | None = chz.field(default=None, doc="dense feature with the title's vector by a frozen encoder")
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
        image, text = features[config.image], features[config.text]
        if image.kind != "image" or text.kind != "text":
            raise ValueError(f"ImageText needs an image and a text; got {image.kind} and {text.kind}")
        self.image_name, self.text_name = config.image, config.text
        self.vision = config.vision.make(image.shape, rngs=rngs)
        told = config.language
        self.language = None if told is None else told.make(tokens=text.size, length=text.max_len, rngs=rngs)
        if self.language is None and config.vector is None:
            raise ValueError("ImageText reads no title: give model.language, model.vector, or both")
        width = None if self.language is None else self.language.width
        if config.dim is None and (config.vector is not None or self.vision.width != width):
            raise ValueError(f"vectors of {self.vision.width} and {width} share no space: give model.dim")
        self.image_out = _projection(self.vision.width, config.dim, rngs=rngs)
        self.text_out = None if width is None else _projection(width, config.dim, rngs=rngs)
        self.vector_name = config.vector or ""
        self.vector_size = 0 if config.vector is None else features[config.vector].shape[-1]
        self.vector_out = _projection(self.vector_size, config.dim, rngs=rngs) if self.vector_size else None
        self.temperature = Temperature(config.scale, bias=config.bias)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs = self.temperature()
        if (title := self.titles(batch, rngs=rngs)) is not None:
            outputs["query"] = unit(title)
        if self.image_name in batch:
            image = self.vision(batch[self.image_name], rngs=rngs)
            outputs["item"] = unit(image if self.image_out is None else self.image_out(image))
        return outputs if rngs is None else {**outputs, **balance_losses(self)}

    def titles(self, batch: Batch, *, rngs: nnx.Rngs | None) -> Float[Array, "b d"] | None:
        """By what the model reads of tokens and vectors made beforehand; None where the batch lacks some of it."""
        needed = ((self.text_name, self.language), (self.vector_name, self.vector_out))
        if any(reader is not None and name not in batch for name, reader in needed):
            return None
        parts = []
        if self.language is not None:
            text = self.language(batch[self.text_name], where=valid(batch, self.text_name), rngs=rngs)
            parts.append(text if self.text_out is None else self.text_out(text))
        if self.vector_out is not None:
            # Published vectors come in any length; of unit width they are as large as what a layer norm leaves.
            parts.append(self.vector_out(unit(batch[self.vector_name]) * self.vector_size**0.5))
        return sum(parts[1:], start=parts[0])


def _projection(width: int, dim: int | None, *, rngs: nnx.Rngs) -> Linear | None:
    return None if dim is None else Linear(width, dim, use_bias=False, rngs=rngs)
