"""Random crops, flips and colours of uint8 images, a batch at once."""

import chz
import numpy as np

from data.sources import Rows
from data.transforms.base import Transform


@chz.chz
class Augment(Transform):
    """Each image its own window, mirror and colours; the size stays."""

    image: str = chz.field(default="image", doc="image feature")
    scale: float = chz.field(default=0.8, doc="least side of the window, as a share of the image; 1: no crop")
    flip: bool = chz.field(default=True, doc="mirror half of the images left to right")
    brightness: float = chz.field(default=0.2, doc="largest change, as a share")
    contrast: float = chz.field(default=0.2, doc="largest change, as a share")
    saturation: float = chz.field(default=0.2, doc="largest change, as a share; for three channels")

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        images = batch[self.image]
        draws = rng.random((len(images), 7), dtype=np.float32)
        images = self._window(images, draws[:, :4])
        changes = 2 * draws[:, 4:] - 1
        images = recolour(
            images,
            brightness=1 + self.brightness * changes[:, 0],
            contrast=1 + self.contrast * changes[:, 1],
            saturation=1 + self.saturation * changes[:, 2],
        )
        return {**batch, self.image: images}

    def _window(self, images: np.ndarray, draws: np.ndarray) -> np.ndarray:
        count, height, width, channels = images.shape
        side = self.scale + (1 - self.scale) * draws[:, 0]
        rows = nearest(height, side=side, at=draws[:, 1])
        columns = nearest(width, side=side, at=draws[:, 2])
        if self.flip:
            columns = np.where(draws[:, 3:4] < 0.5, columns[:, ::-1], columns)
        start = np.arange(count, dtype=np.int64) * height
        at = ((start[:, None] + rows) * width)[:, :, None] + columns[:, None, :]
        if channels == 1:
            return images.reshape(-1)[at.reshape(-1)].reshape(images.shape)
        whole = np.zeros((count * height * width, 4), np.uint8)  # a pixel is gathered as one word
        whole[:, :channels] = images.reshape(-1, channels)
        pixels = whole.view(np.uint32)[:, 0].take(at.reshape(-1), mode="clip")
        return pixels.view(np.uint8).reshape(count, height, width, 4)[..., :channels]


def nearest(size: int, *, side: np.ndarray, at: np.ndarray) -> np.ndarray:
    """[b, size] source positions of a window: `side` of the line long, `at` of the way to its last place."""
    span = side * size
    start = at * (size - span)
    place = start[:, None] + (np.arange(size) + 0.5) * (span / size)[:, None]
    return np.clip(place.astype(np.int64), 0, size - 1)


def recolour(images: np.ndarray, *, brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """uint8 images times brightness, stretched about their mean by contrast and about grey by saturation."""
    if (brightness == 1).all() and (contrast == 1).all() and (saturation == 1).all():
        return images
    count, height, width, channels = images.shape
    gain = (brightness * contrast).astype(np.float32)[:, None]
    planes = [images[..., c].reshape(count, -1).astype(np.float32) for c in range(channels)]
    mean = sum(plane.mean(axis=1) for plane in planes) / channels
    shift = (brightness * mean * (1 - contrast)).astype(np.float32)[:, None]
    if channels == 3 and (saturation != 1).any():
        saturation = saturation.astype(np.float32)[:, None]
        shift = planes[0] * (0.299 * gain * (1 - saturation)) + (shift + 0.5)
        shift += planes[1] * (0.587 * gain * (1 - saturation))
        shift += planes[2] * (0.114 * gain * (1 - saturation))
        gain = gain * saturation
    else:
        shift = shift + 0.5
    out = np.empty((count, height * width, channels), np.uint8)
    for c, plane in enumerate(planes):
        plane *= gain
        plane += shift
        np.clip(plane, 0, 255, out=plane)
        out[..., c] = plane
    return out.reshape(images.shape)
