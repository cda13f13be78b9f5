"""Picture and title in one space: CLIP (Radford et al., ICML 2021), and SigLIP (Zhai et al., ICCV 2023).

Two encoders, a linear projection of each, unit length, a learned temperature; `bias` adds the offset that the
sigmoid loss learns (SigLIP, section 3.2). The title is the query, the picture the item.
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.text import TextEncoderConfig, TextTransformer
from modules.encoders.vision import ImageEncoder, ViT
from modules.layers.experts import balance_losses
from modules.layers.similarity import Temperature, unit


@chz.chz
class ImageText(ModelConfig):
    dim: int | None = chz.field(default=64, doc="of the shared space; None: the encoders end in it themselves (SigLIP)")
    vision: ImageEncoder = chz.field(default_factory=ViT, blueprint_unspecified=ViT)
    language: TextEncoderConfig = chz.field(default_factory=TextTransformer, blueprint_unspecified=TextTransformer)
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
        self.language = config.language.make(tokens=text.size, length=text.max_len, rngs=rngs)
        if config.dim is None and self.vision.width != self.language.width:
            raise ValueError(f"vectors of {self.vision.width} and {self.language.width} share no space: give model.dim")
        self.image_out = _projection(self.vision.width, config.dim, rngs=rngs)
        self.text_out = _projection(self.language.width, config.dim, rngs=rngs)
        self.temperature = Temperature(config.scale, bias=config.bias)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs = self.temperature()
        if self.text_name in batch:
            where = valid(batch, self.text_name)
            text = self.language(batch[self.text_name], where=where, rngs=rngs)
            outputs["query"] = unit(text if self.text_out is None else self.text_out(text))
        if self.image_name in batch:
            image = self.vision(batch[self.image_name], rngs=rngs)
            outputs["item"] = unit(image if self.image_out is None else self.image_out(image))
        return outputs if rngs is None else {**outputs, **balance_losses(self)}


def _projection(width: int, dim: int | None, *, rngs: nnx.Rngs) -> nnx.Linear | None:
    return None if dim is None else nnx.Linear(width, dim, use_bias=False, rngs=rngs)
