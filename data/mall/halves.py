"""Listings of which one part is to be had from the vector of the other; and which listings lack a part."""

from typing import Literal

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Dense, Features, Text
from data.mall.config import Mall
from data.mall.rng import uniforms
from data.mall.sources import MallProducts
from data.mall.vectors import read_vectors
from data.mall.views.title import LENGTH
from data.mall.views.words import lexicon
from data.sources import InMemory, SourceConfig
from data.vectors import unit

Half = Literal["image", "title"]
PARTS: tuple[Half, Half] = ("image", "title")
PATCH = 8  # pixels: pictures are compared patch by patch


def halves(path: str, *, mall: Mall) -> dict[str, np.ndarray]:
    """Vectors of all pictures and of all titles, of a file that has them end to end."""
    vectors = read_vectors(path, rows=FIRST + mall.n_items)[FIRST:]
    if vectors.shape[1] % 2:
        raise UserError(f"{path} holds {vectors.shape[1]} numbers a row: join a picture's and a title's vector")
    return dict(zip(PARTS, np.split(vectors.astype(np.float64), 2, axis=1), strict=True))


def lacking(count: int, *, missing: float, seed: int) -> dict[str, np.ndarray]:
    """Which of the listings lack a picture and which a title, half of the share each; nothing lacks both."""
    luck = uniforms(seed, name="missing part", ids=np.arange(count), draws=1)[:, 0]
    return {"image": luck < missing / 2, "title": (luck >= missing / 2) & (luck < missing)}


def patches(images: np.ndarray) -> np.ndarray:
    """[n, patches x channels], 0..1: the mean colour of each patch."""
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // PATCH, PATCH, width // PATCH, PATCH, channels)
    return grid.mean(axis=(2, 4)).reshape(n, -1) / 255.0


@chz.chz
class MallHalves(SourceConfig):
    """A row per listing that has both parts: "present", the vector of the one, and of the other, which `lacks` names,
    its vector "gone" and what it is: "title", or the "patches" of the picture."""

    of: str = chz.field(doc="file of vectors, picture then title end to end, such as @items/vectors.npz")
    mall: Mall = chz.field(default_factory=Mall)
    lacks: Half = "title"
    missing: float = chz.field(default=0.3, doc="share of the listings that lack a part, as Complete hides it")
    seed: int = chz.field(default=0, doc="as that of Complete")

    def make(self) -> InMemory:
        products, parts = MallProducts(mall=self.mall).make(), halves(self.of, mall=self.mall)
        hidden = lacking(len(products), missing=self.missing, seed=self.seed)
        known = np.flatnonzero(~hidden["image"] & ~hidden["title"])
        rows = products.take(known)
        here = PARTS[1 - PARTS.index(self.lacks)]
        vectors = {"present": unit(parts[here][known]), "gone": unit(parts[self.lacks][known])}
        dense = tuple(Dense(name=name, role="item", dim=value.shape[1]) for name, value in vectors.items())
        if self.lacks == "title":
            told = Text(name="title", role="item", tokens=lexicon(self.mall).tokens, length=LENGTH)
            columns = {name: rows[name] for name in told.arrays()}
            return InMemory({**vectors, **columns}, features=Features(all=(*dense, told)))
        seen = patches(rows["image"])
        painted = Dense(name="patches", role="item", dim=seen.shape[1])
        return InMemory({**vectors, "patches": seen}, features=Features(all=(*dense, painted)))
