"""Titles as token ids: brand, quality word, attribute words, noun; with synonyms, a second language and typos."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import uniforms
from data.mall.views.words import lexicon

LENGTH = 16


def titles(mall: Mall, *, shop: Catalogue, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [n, LENGTH], padded with 0, and lengths: (promo) brand (quality) theme (attributes) noun (shop)."""
    items = np.asarray(items)
    words = lexicon(mall)
    spu = shop.spu[items]
    leaf = shop.leaf[items]
    u = uniforms(mall.seed, name="title", ids=items, draws=32)
    second = in_second_language(mall, items=items)

    def word(kind: str, *, value: np.ndarray, draw: int, keep: float = 1.0, coin: int = 0) -> np.ndarray:
        return np.where(u[:, coin] < keep, words.pick(kind, value=value, second=second, u=u[:, draw]), 0)

    parts = [
        word("promo", value=(u[:, 2] * 4).astype(np.int64), draw=3, keep=0.3, coin=1),
        word("brand", value=shop.spu_brand[spu], draw=4),
        word("quality", value=quality_level(shop.spu_quality[spu]), draw=6, keep=0.7, coin=5),
        word("theme", value=shop.spu_theme[spu], draw=7),
        *(
            word(name, value=shop.spu_attributes[spu, j], draw=8 + j, keep=0.75, coin=14 + j)
            for j, name in enumerate(ATTRIBUTES)
        ),
        word("leaf", value=leaf, draw=20),
        word("top", value=shop.leaf_top[leaf], draw=22, keep=0.5, coin=21),
    ]
    return squeeze(misspell(mall, tokens=np.stack(parts, -1), ids=items, name="title typo"), length=LENGTH)


def in_second_language(mall: Mall, *, items: np.ndarray) -> np.ndarray:
    """A listing has one language in all its texts."""
    return uniforms(mall.seed, name="language", ids=items, draws=1)[:, 0] < mall.views.second_language


def quality_level(quality: np.ndarray) -> np.ndarray:
    return np.digitize(quality, [-0.7, 0.7])


def misspell(mall: Mall, *, tokens: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    typo = uniforms(mall.seed, name=name, ids=ids, draws=tokens.shape[1]) < mall.views.typo
    return np.where(typo & (tokens > 0), lexicon(mall).misspelt(tokens), tokens)


def squeeze(tokens: np.ndarray, *, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Moves the zeros of each row to its end."""
    order = np.argsort(tokens == 0, axis=-1, kind="stable")
    packed = np.take_along_axis(tokens, order, -1)[:, :length]
    out = np.zeros((len(tokens), length), np.int32)
    out[:, : packed.shape[1]] = packed
    return out, (out > 0).sum(-1).astype(np.int32)
