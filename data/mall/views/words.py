"""The closed vocabulary of the mall: every value has two synonyms in each of two languages, and each word one typo."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, THEMES

FORMS = 4  # (language, synonym)
FIRST = 2  # 0 pads, 1 is unknown


@dataclass(frozen=True)
class Lexicon:
    start: dict[str, int]  # first word number of each kind
    count: dict[str, int]
    size: int  # correct words

    @property
    def tokens(self) -> int:
        """Rows of an embedding of words: padding, unknown, words, their typos."""
        return FIRST + 2 * self.size

    def pick(self, kind: str, *, value: np.ndarray, second: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Token of a value in the asked language, by the common synonym in two cases of three."""
        form = 2 * second.astype(np.int64) + (u > 2.0 / 3.0)
        return FIRST + self.start[kind] + FORMS * np.asarray(value) + form

    def misspelt(self, tokens: np.ndarray) -> np.ndarray:
        return tokens + self.size


@lru_cache(maxsize=8)
def lexicon(mall: Mall) -> Lexicon:
    a, b, c = mall.dims.tree
    kinds = {"leaf": a * b * c, "mid": a * b, "top": a, "brand": mall.dims.brands, "theme": THEMES, "quality": 3}
    kinds |= ATTRIBUTES | {"promo": 4, "filler": 16}
    start, at = {}, 0
    for kind, count in kinds.items():
        start[kind] = at
        at += FORMS * count
    return Lexicon(start=start, count=kinds, size=at)
