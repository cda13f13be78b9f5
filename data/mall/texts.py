"""What the mall's listings say, as strings, as tokens of a published encoder, and as vectors of whatever encoder."""

from functools import lru_cache

import chz
import numpy as np
import pyarrow as pa

from data.encode import encode
from data.features import FIRST, Features, Label, Text
from data.hashed_text import hashed_tfidf
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.vectors import read_vectors
from data.mall.views.text import descriptions
from data.mall.views.title import titles
from data.mall.views.words import lexicon
from data.packed_classes import Texts
from data.paths import expand
from data.sources import SourceConfig
from data.vocabulary import Vocabularies

DIM = 256
"""Of the vectors that stand in for a language model's."""


def listing_texts(mall: Mall) -> list[str]:
    """Title and description of each listing."""
    shop, words = shop_of(mall), lexicon(mall)
    items = np.arange(mall.n_items)
    (title, _), (description, _) = titles(mall, shop=shop, items=items), descriptions(mall, shop=shop, items=items)
    return [f"{words.text(t)} {words.text(d)}" for t, d in zip(title, description, strict=True)]


@lru_cache(maxsize=2)
def hashed_texts(mall: Mall) -> np.ndarray:
    """[rows, DIM], row = id in the batch."""
    return np.concatenate([np.zeros((FIRST, DIM), np.float32), hashed_tfidf(listing_texts(mall), dim=DIM)])


def text_vectors(mall: Mall, *, path: str | None) -> np.ndarray:
    """[rows, dim] of the listings' texts: from a folder that an encoder's `embed` wrote, or hashed TF-IDF."""
    return hashed_texts(mall) if path is None else read_vectors(path, rows=FIRST + mall.n_items)


@chz.chz
class MallTexts(SourceConfig):
    """Every listing's title and description as the tokens of a published encoder, which is run once over them."""

    mall: Mall = chz.field(default_factory=Mall)
    tokenizer: str = chz.field(doc="tokenizer.json or vocab.txt of the encoder; may begin with $NAME")
    length: int = chz.field(default=96, doc="tokens kept, the first")

    def make(self) -> Texts:
        path = expand(self.tokenizer)
        vocabularies = Vocabularies(path.parent)
        size = vocabularies.tokenizer(path.name).get_vocab_size()
        text = Text(name="text", role="item", tokens=size, length=self.length, tokenizer=path.name)
        features = Features(all=(text, Label(name="item", type="class")))
        table = pa.table({"text": listing_texts(self.mall), "item": FIRST + np.arange(self.mall.n_items)})
        told = encode(table, features=features, vocabularies=vocabularies, file="the mall's texts")
        return Texts(told.rows, features=features, vocabularies=vocabularies)
