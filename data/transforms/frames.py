"""Fewer frames of a clip, spread over all of it."""

import chz
import numpy as np

from data.errors import UserError
from data.features import Features, Sequence
from data.sources import Rows
from data.transforms.base import Transform


def centres(length: np.ndarray, *, count: int) -> np.ndarray:
    """[b, count] frames at the centres of `count` equal parts of each clip: int((2 i + 1) N / (2 count)) of N."""
    return (2 * np.arange(count)[None] + 1) * np.asarray(length)[:, None] // (2 * count)


@chz.chz
class SampleFrames(Transform):
    """Keeps `count` frames of each clip. A clip of fewer shows some of them twice; one of none keeps none."""

    clip: str = chz.field(doc="sequence of frames")
    count: int = 4

    def features(self, features: Features) -> Features:
        found = features[self.clip]
        if not isinstance(found, Sequence):
            raise UserError(f"{self.clip!r} is {found.kind}, and frames are sampled from a sequence")
        sampled = chz.replace(found, length=self.count)
        return Features(all=tuple(sampled if f.name == self.clip else f for f in features.all))

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        clips, length = batch[self.clip], batch[f"{self.clip}/length"]
        frames = clips[np.arange(len(clips))[:, None], centres(length, count=self.count)]
        count = np.where(length > 0, self.count, 0).astype(length.dtype)
        return {**batch, self.clip: frames, f"{self.clip}/length": count}
