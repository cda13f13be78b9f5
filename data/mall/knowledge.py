"""What a language model knows of the mall's listings and says of its people, as vectors beside the click rows.

No language model reads the mall: stand-ins write what one would, from what is there to read. Facts are title and
description. Reasoning names, of each past item, its noun, theme and colour, so that what is named often weighs most.
"""

from functools import lru_cache

import chz
import numpy as np

from data.features import FIRST, Dense
from data.hashed_text import hashed_tfidf
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES
from data.mall.sources import MallClicks, MallNewcomers, Split, WithHistory
from data.mall.texts import DIM, listing_texts, text_vectors
from data.mall.views.words import lexicon
from data.sources import Rows, SourceConfig

REASONING, FACTS = "reasoning", "facts"


@chz.chz
class MallKnowledge(SourceConfig):
    """Click rows by a vocabulary of the training days, with `facts` of the item and `reasoning` about the person."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    history: int = chz.field(default=20, doc="past actions kept, the newest")
    facts: str | None = chz.field(
        default=None, doc="vectors of the listings' facts, as embed wrote them; None: hashed TF-IDF"
    )

    def make(self) -> "Knowing":
        mall = self.mall
        source = MallNewcomers(mall=mall, split=self.split, history=self.history).make()
        whole = MallClicks(mall=mall, split=self.split, history=self.history).make()
        return Knowing(source, whole=whole, facts=text_vectors(mall, path=self.facts), named=named_words(mall))


class Knowing:
    """The rows of `source`; knowledge is of the items as they are, whether their ids are known or not."""

    def __init__(self, source: WithHistory, *, whole: WithHistory, facts: np.ndarray, named: np.ndarray):
        self.source, self.whole, self.facts, self.named = source, whole, facts, named
        self.features = source.features.plus(
            Dense(name=REASONING, role="user", dim=named.shape[1]), Dense(name=FACTS, role="item", dim=facts.shape[1])
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows, whole = self.source.take(indices), self.whole.take(indices)
        said = self.named[whole["history"]].sum(axis=1)
        rows[REASONING] = said / np.maximum(np.linalg.norm(said, axis=1, keepdims=True), 1e-12)
        rows[FACTS] = self.facts[whole["item"]]
        return rows


@lru_cache(maxsize=2)
def named_words(mall: Mall) -> np.ndarray:
    """[rows, DIM] of noun, theme and colour of each listing; 0 for ids that are no listing."""
    shop, words = shop_of(mall), lexicon(mall)
    colour = list(ATTRIBUTES).index("colour")
    values = {"leaf": shop.leaf, "theme": shop.spu_theme[shop.spu], "colour": shop.spu_attributes[shop.spu, colour]}
    plain = np.zeros(mall.n_items)
    tokens = [words.pick(kind, value=v, second=plain > 0, u=plain) for kind, v in values.items()]
    texts = [" ".join(words.strings[t] for t in row) for row in zip(*tokens, strict=True)]
    vectors = hashed_tfidf(texts, dim=DIM, corpus=listing_texts(mall))
    return np.concatenate([np.zeros((FIRST, DIM), np.float32), vectors])
