"""A picture and words that change it: two products of one leaf, and the looks in which the second differs."""

from functools import lru_cache
from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Text
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.listing_pairs import ListingPairs, class_labels, products_of
from data.mall.rng import uniforms
from data.mall.searches import looks
from data.mall.views.title import in_second_language, misspell, squeeze
from data.mall.views.words import lexicon
from data.sources import SourceConfig

Split = Literal["train", "valid", "test"]
CHANGES = ("theme", "colour", "pattern")  # what a picture shows beside the leaf
MOST = 2  # of them in one row


@chz.chz
class MallComposed(SourceConfig):
    """`query_image` is changed by `change`, the words of what is to be different, into the product of `image`.

    Both are of one leaf and of products of the split; they differ in one or two of theme, colour and pattern.
    """

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    most: int = chz.field(default=20_000, doc="rows kept, by chance")

    def make(self) -> ListingPairs:
        shop, words = shop_of(self.mall), lexicon(self.mall)
        before, after = (column[: self.most] for column in _pairs(self.mall, self.split))
        values = _values(self.mall)
        second = in_second_language(self.mall, items=after)
        row = before.astype(np.int64) * len(shop) + after
        u = uniforms(self.mall.seed, name="change", ids=row, draws=len(CHANGES))
        said = [
            np.where(
                values[before, j] != values[after, j],
                words.pick(kind, value=values[after, j], second=second, u=u[:, j]),
                0,
            )
            for j, kind in enumerate(CHANGES)
        ]
        tokens = misspell(self.mall, tokens=np.stack(said, -1), ids=row, name="change typo")
        text, count = squeeze(tokens, length=MOST)
        columns = {"change": text, "change/length": count, "look": looks(self.mall)[after], "sought": FIRST + after}
        return ListingPairs(
            self.mall,
            sides={"query_": (before, ("image",)), "": (after, ("image",))},
            columns=columns,
            features=(
                Text(name="change", role="user", tokens=words.tokens, length=MOST),
                *class_labels("look", "sought"),
            ),
        )


def _values(mall: Mall) -> np.ndarray:
    """[listings, CHANGES]"""
    shop = shop_of(mall)
    return np.stack([shop.spu_theme, shop.spu_attributes[:, 0], shop.spu_attributes[:, 1]], -1)[shop.spu]


@lru_cache(maxsize=4)
def _pairs(mall: Mall, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Listings before and after, all that there are, in an order of chance."""
    shop, values = shop_of(mall), _values(mall)
    inside = np.flatnonzero(products_of(mall, split=split))
    found = []
    for leaf in range(shop.leaves):
        here = inside[shop.leaf[inside] == leaf]
        apart = (values[here][:, None] != values[here][None]).sum(axis=-1)
        a, b = np.nonzero((apart >= 1) & (apart <= MOST))
        found.append(np.stack([here[a], here[b]]))
    pairs = np.concatenate(found, axis=1)
    luck = uniforms(mall.seed, name="composed", ids=pairs[0].astype(np.int64) * len(shop) + pairs[1], draws=1)[:, 0]
    before, after = pairs[:, np.argsort(luck)]
    return before, after
