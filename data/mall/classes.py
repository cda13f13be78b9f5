"""What the mall's products are, as classes beside the rows of another source, and the words that name those classes."""

import chz
import numpy as np

from data.features import Features, Label, Text
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, THEMES, Catalogue
from data.mall.views.title import LENGTH, quality_level
from data.mall.views.words import FORMS, lexicon
from data.sources import InMemory, Rows, Source, SourceConfig

CLASSES = ("leaf", "top", "theme", "brand", "quality", *ATTRIBUTES)


def classes_of(shop: Catalogue, spu: np.ndarray) -> Rows:
    """The true class of each product in every kind."""
    leaf = shop.spu_leaf[spu]
    out = {"leaf": leaf, "top": shop.leaf_top[leaf], "theme": shop.spu_theme[spu], "brand": shop.spu_brand[spu]}
    out["quality"] = quality_level(shop.spu_quality[spu])
    return {**out, **{name: shop.spu_attributes[spu, j] for j, name in enumerate(ATTRIBUTES)}}


def class_count(mall: Mall, name: str) -> int:
    a, b, c = mall.dims.tree
    sizes = {"leaf": a * b * c, "top": a, "theme": THEMES, "brand": mall.dims.brands, "quality": 3, **ATTRIBUTES}
    if name not in sizes:
        raise ValueError(f"the mall has no class {name!r}; it has {', '.join(CLASSES)}")
    return sizes[name]


@chz.chz
class MallClasses(SourceConfig):
    """The rows of a source of the mall that names products (`spu`), with their true classes."""

    of: SourceConfig = chz.field(doc="source with the product of each row")
    mall: Mall = chz.field(default_factory=Mall, doc="that of the source")
    classes: tuple[str, ...] = CLASSES

    @chz.validate
    def _known(self) -> None:
        for name in self.classes:
            class_count(self.mall, name)

    def make(self) -> "Classed":
        return Classed(self)


class Classed:
    def __init__(self, config: MallClasses):
        self.source: Source = config.of.make()
        known = classes_of(shop_of(config.mall), np.arange(len(shop_of(config.mall).spu_leaf)))
        self._known = {name: known[name].astype(np.int32) for name in config.classes}
        self._words = lexicon(config.mall)
        labels = [Label(name=name, type="class") for name in config.classes]
        self.features = self.source.features.plus(*labels)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = self.source.take(indices)
        return {**rows, **{name: known[rows["spu"]] for name, known in self._known.items()}}

    def spell(self, tokens: np.ndarray) -> str:
        return self._words.text(tokens)


@chz.chz
class MallPrompts(SourceConfig):
    """The names of one kind of class: a row for each of a value's words, which are synonyms in two languages."""

    of: str = chz.field(doc="kind of class, such as colour")
    mall: Mall = chz.field(default_factory=Mall)
    text: str = chz.field(default="title", doc="feature that the words are given as")

    def make(self) -> InMemory:
        words, count = lexicon(self.mall), class_count(self.mall, self.of)
        value, form = np.repeat(np.arange(count), FORMS), np.tile(np.arange(FORMS), count)
        token = words.pick(self.of, value=value, second=form >= 2, u=form % 2)
        title = np.zeros((len(value), LENGTH), np.int32)
        title[:, 0] = token
        features = Features(
            all=(
                Text(name=self.text, role="item", tokens=words.tokens, length=LENGTH),
                Label(name=self.of, type="class"),
            )
        )
        columns: Rows = {self.text: title, f"{self.text}/length": np.ones(len(value), np.int32), self.of: value}
        return InMemory(columns, features=features)
