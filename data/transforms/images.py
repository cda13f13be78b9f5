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
        flat = images.reshape(count * height * width, channels)
        start = np.arange(count, dtype=np.int64) * height
        at = ((start[:, None] + rows) * width)[:, :, None] + columns[:, None, :]
        return flat[at]


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
    wide = images.astype(np.float32)
    mean = wide.mean(axis=(1, 2, 3), dtype=np.float32)
    gain = (brightness * contrast).astype(np.float32)
    shift = (brightness * mean * (1 - contrast)).astype(np.float32)
    if images.shape[-1] == 3 and (saturation != 1).any():
        grey = wide @ np.array([0.299, 0.587, 0.114], np.float32)
        grey *= (gain * (1 - saturation))[:, None, None]
        grey += shift[:, None, None]
        wide *= (gain * saturation)[:, None, None, None]
        wide += grey[..., None]
    else:
        wide *= gain[:, None, None, None]
        wide += shift[:, None, None, None]
    np.clip(wide, 0, 255, out=wide)
    return (wide + 0.5).astype(np.uint8)
