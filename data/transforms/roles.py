"""Features in another part: what a source declares as an input may be a key of metrics alone."""

import chz
import numpy as np

from data.errors import UserError
from data.features import Categorical, Features, Group
from data.sources import Rows
from data.transforms.base import Transform


@chz.chz
class AsGroup(Transform):
    """Keeps a categorical feature for metrics and slices, unseen by the model."""

    feature: str = chz.field(doc="such as the user of a data set whose users are few rows each")

    def features(self, features: Features) -> Features:
        found = features[self.feature]
        if not isinstance(found, Categorical):
            raise UserError(f"{self.feature!r} is {found.kind}, and groups are made of a categorical feature")
        group = Group(name=found.name, role=found.role, encode=found.encode)
        return Features(all=tuple(group if f.name == self.feature else f for f in features.all))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        return batch
