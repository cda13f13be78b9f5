"""Pictures of a catalogue in two views each, beside rows of something else."""

import chz
import numpy as np

from data.features import Features
from data.sources import Rows, Source, SourceConfig
from data.transforms.base import Bound, Transform
from data.transforms.images import Augment


@chz.chz
class SelfViews(Transform):
    """Adds two random views of a picture for each row, of an item drawn uniformly, whether or not anyone saw it."""

    items: SourceConfig = chz.field(doc="the catalogue")
    image: str = chz.field(default="image", doc="its feature with the picture")
    names: tuple[str, str] = ("view_a", "view_b")
    augment: Augment = chz.field(default_factory=lambda: Augment(scale=0.6))

    def features(self, features: Features) -> Features:
        image = self.items.make().features[self.image]
        return features.plus(*(chz.replace(image, name=name) for name in self.names))

    def bind(self, source: Source) -> Bound:
        return _SelfViews(self, self.items.make())


class _SelfViews:
    def __init__(self, config: SelfViews, items: Source):
        self.config, self.items = config, items

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        config, rows = self.config, len(next(iter(batch.values())))
        drawn = self.items.take(rng.integers(0, len(self.items), size=rows))[config.image]
        augment = chz.replace(config.augment, image=config.image)
        views = {name: augment({config.image: drawn}, rng=rng)[config.image] for name in config.names}
        return {**batch, **views}
