"""The mall's listings as people see them: title and picture."""

import io

import chz
import numpy as np
import pyarrow as pa
from PIL import Image

from data.features import FIRST
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.rng import uniforms
from data.mall.views.image import images
from data.mall.views.title import titles
from data.mall.views.words import lexicon
from data.tables import TableConfig

CHUNK = 512


@chz.chz
class MallDisplay(TableConfig):
    """One row per listing; `image` holds the bytes of a PNG, null where a listing has none."""

    mall: Mall = chz.field(default_factory=Mall)
    side: int = chz.field(default=64, doc="pixels of a picture, which models see at 32")

    def make(self) -> pa.Table:
        shop, words = shop_of(self.mall), lexicon(self.mall)
        every = np.arange(len(shop))
        tokens, lengths = titles(self.mall, shop=shop, items=every)
        said = [words.text(row[:length]) for row, length in zip(tokens, lengths.tolist(), strict=True)]
        bare = uniforms(self.mall.seed, name="no image", ids=every, draws=1)[:, 0] < self.mall.views.no_image
        drawn: list[bytes | None] = []
        for start in range(0, len(every), CHUNK):
            part = every[start : start + CHUNK]
            for picture, none in zip(
                images(self.mall, shop=shop, items=part, side=self.side), bare[part].tolist(), strict=True
            ):
                drawn.append(None if none else png(picture))
        return pa.table({"item": FIRST + every, "title": said, "image": pa.array(drawn, pa.binary())})


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
