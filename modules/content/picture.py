"""A picture as one vector, by whatever encoder.

For published encoders that stay as they are: their vectors are computed once and read as a dense feature.
"""

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.encoders.vision import ImageEncoder, ViT


@chz.chz
class Picture(ModelConfig):
    """The vector is "item", as that of a picture is in `ImageText`; of the encoder's own length."""

    vision: ImageEncoder = chz.field(default_factory=ViT, blueprint_unspecified=ViT)
    image: str = chz.field(default="image", doc="feature with the picture")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "PictureModel":
        return PictureModel(self, features=features, rngs=rngs)


class PictureModel(Model):
    def __init__(self, config: Picture, *, features: Features, rngs: nnx.Rngs):
        self.image_name = config.image
        self.vision = config.vision.of(features[config.image], rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        return {"item": self.vision(batch[self.image_name], rngs=rngs)}
