"""Two looks at one picture, for encoders that are to see that both show the same."""

import chz
import numpy as np

from data.features import Features
from data.sources import Rows
from data.transforms.base import Transform
from data.transforms.images import Augment


@chz.chz
class TwoViews(Transform):
    """`other` is the picture too; each is augmented by itself (SimCLR, Chen et al., ICML 2020)."""

    other: str = chz.field(default="query_image", doc="name of the second view")
    augment: Augment = chz.field(
        default=Augment(scale=0.6, brightness=0.3, contrast=0.3, saturation=0.3), doc="of both; names the picture"
    )

    def features(self, features: Features) -> Features:
        return features.plus(chz.replace(features[self.augment.image], name=self.other))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        name = self.augment.image
        views = [self.augment({name: batch[name]}, rng=rng)[name] for _ in range(2)]
        return {**batch, name: views[0], self.other: views[1]}
