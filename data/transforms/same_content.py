"""What looks the same is the same: one number for rows whose views are equal."""

import zlib

import chz
import numpy as np

from data.features import Features
from data.sources import Rows
from data.transforms.base import Transform
from data.transforms.history import Ids


@chz.chz
class SameContent(Transform):
    """Adds `name`: equal where all `views` are, so that a listing copied to another product is not told from itself."""

    views: tuple[str, ...] = chz.field(doc="arrays of the batch, such as offer_image and offer_title")
    name: str = chz.field(default="content", doc="of the number, 31 bits of a checksum")

    def features(self, features: Features) -> Features:
        for view in self.views:
            features[view]
        return features.plus(Ids(name=self.name))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        views = [np.ascontiguousarray(batch[view]) for view in self.views]
        sums = np.zeros(len(views[0]), np.int32)
        for row in range(len(sums)):
            checksum = 0
            for view in views:
                checksum = zlib.crc32(view[row].tobytes(), checksum)
            sums[row] = checksum >> 1
        return {**batch, self.name: sums}
