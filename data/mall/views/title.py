"""Titles as token ids: brand, quality word, attribute words, noun; with synonyms, a second language and typos."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import uniforms
from data.mall.views.words import lexicon

LENGTH = 16


def titles(mall: Mall, *, shop: Catalogue, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [n, LENGTH], padded with 0, and lengths."""
    items = np.asarray(items)
    words = lexicon(mall)
    spu = shop.spu[items]
    u = uniforms(mall.seed, name="title", ids=items, draws=48)
    second = u[:, 0] < 0.25  # a listing in the second language
    quality = np.digitize(shop.spu_quality[spu], [-0.7, 0.7])
    parts = [
        np.where(u[:, 1] < 0.3, words.pick("promo", value=(u[:, 2] * 4).astype(int), second=second, u=u[:, 3]), 0),
        words.pick("brand", value=shop.spu_brand[spu], second=second, u=u[:, 4]),
        np.where(u[:, 5] < 0.7, words.pick("quality", value=quality, second=second, u=u[:, 6]), 0),
        words.pick("theme", value=shop.spu_theme[spu], second=second, u=u[:, 7]),
    ]
    for j, name in enumerate(ATTRIBUTES):
        word = words.pick(name, value=shop.spu_attributes[spu, j], second=second, u=u[:, 8 + j])
        parts.append(np.where(u[:, 14 + j] < 0.75, word, 0))
    parts.append(words.pick("leaf", value=shop.leaf[items], second=second, u=u[:, 20]))
    parts.append(
        np.where(u[:, 21] < 0.5, words.pick("top", value=shop.leaf_top[shop.leaf[items]], second=second, u=u[:, 22]), 0)
    )
    tokens = np.stack(parts, -1)
    typo = u[:, 24 : 24 + tokens.shape[1]] < 0.03
    return squeeze(np.where(typo & (tokens > 0), words.misspelt(tokens), tokens), length=LENGTH)


def squeeze(tokens: np.ndarray, *, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Moves the zeros of each row to its end."""
    order = np.argsort(tokens == 0, axis=-1, kind="stable")
    packed = np.take_along_axis(tokens, order, -1)[:, :length]
    out = np.zeros((len(tokens), length), np.int32)
    out[:, : packed.shape[1]] = packed
    return out, (out > 0).sum(-1).astype(np.int32)
