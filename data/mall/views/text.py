"""Texts beside the title: attribute table, description, reviews, search queries."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import uniforms
from data.mall.views.title import in_second_language, misspell, quality_level, squeeze
from data.mall.views.words import lexicon

DESCRIPTION = 40
REVIEW = 16
QUERY = 6


def price_band(shop: Catalogue, *, items: np.ndarray) -> np.ndarray:
    """0 cheap, 1 fair, 2 dear, against the leaf."""
    return np.digitize(shop.price_level[items], [-0.6, 0.6])


def attribute_table(mall: Mall, *, shop: Catalogue, items: np.ndarray) -> np.ndarray:
    """[n, len(ATTRIBUTES)] value + 1, or 0 where the listing leaves it out; one in fifty is plainly wrong."""
    items = np.asarray(items)
    true = shop.spu_attributes[shop.spu[items]]
    u = uniforms(mall.seed, name="attribute table", ids=items, draws=2 * len(ATTRIBUTES))
    u = u.reshape(len(items), 2, len(ATTRIBUTES))
    sizes = np.array(list(ATTRIBUTES.values()))
    wrong = (u[:, 1] * 50.0 * sizes).astype(np.int64) % sizes
    value = np.where(u[:, 1] < 0.02, wrong, true)
    return np.where(u[:, 0] < mall.views.missing, 0, value + 1).astype(np.int32)


def descriptions(mall: Mall, *, shop: Catalogue, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of the form `the <quality> <noun> is <attribute> , made for <season> ...`, in an order of their own."""
    items = np.asarray(items)
    words, spu = lexicon(mall), shop.spu[items]
    n, second = len(items), in_second_language(mall, items=items)
    u = uniforms(mall.seed, name="description", ids=items, draws=80)
    at = iter(range(80))

    def word(kind: str, value: np.ndarray | int) -> np.ndarray:
        return words.pick(kind, value=np.broadcast_to(value, n), second=second, u=u[:, next(at)])

    noun = [word("glue", 1), word("quality", quality_level(shop.spu_quality[spu])), word("leaf", shop.leaf[items])]
    sentences = [[*noun, word("glue", 3), word("theme", shop.spu_theme[spu])]]
    for j, name in enumerate(ATTRIBUTES):
        sentences.append([word("key", j), word("glue", 3), word(name, shop.spu_attributes[spu, j])])
    sentences.append([word("glue", 4), word("glue", 2), word("season", shop.spu_attributes[spu, 4])])
    sentences.append([word("glue", 5), word("glue", 0), word("price", price_band(shop, items=items))])
    width = max(len(s) for s in sentences)
    block = np.zeros((n, len(sentences), width), np.int64)
    for k, sentence in enumerate(sentences):
        block[:, k, : len(sentence)] = np.stack(sentence, -1)
    keys = uniforms(mall.seed, name="sentence order", ids=items, draws=2 * len(sentences))
    block *= (keys[:, len(sentences) :] < 0.8)[..., None]  # not every listing says everything
    block = np.take_along_axis(block, keys[:, : len(sentences)].argsort(-1)[..., None], 1)
    return squeeze(misspell(mall, tokens=block.reshape(n, -1), ids=items, name="description typo"), length=DESCRIPTION)


def reviews(
    mall: Mall, *, shop: Catalogue, items: np.ndarray, users: np.ndarray, stars: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a buyer writes beside the stars: a verdict, and an attribute or the price that it is about."""
    items, users = np.asarray(items), np.asarray(users)
    words, spu, n = lexicon(mall), shop.spu[items], len(items)
    key = users.astype(np.int64) * len(shop) + items
    u = uniforms(mall.seed, name="review", ids=key, draws=16)
    second = uniforms(mall.seed, name="user language", ids=users, draws=1)[:, 0] < mall.views.second_language
    about = (u[:, 0] * len(ATTRIBUTES)).astype(np.int64)
    named = np.stack(
        [
            words.pick(name, value=shop.spu_attributes[spu, j], second=second, u=u[:, 1])
            for j, name in enumerate(ATTRIBUTES)
        ],
        -1,
    )
    said = np.clip(stars - 1 + np.where(u[:, 2] < 0.15, 1, 0) - np.where(u[:, 3] < 0.15, 1, 0), 0, 4)

    def glue(value: int, draw: int) -> np.ndarray:
        return words.pick("glue", value=np.full(n, value), second=second, u=u[:, draw])

    cost = words.pick("price", value=price_band(shop, items=items), second=second, u=u[:, 12])
    tokens = np.stack(
        [
            np.where(u[:, 4] < 0.6, glue(1, 5), 0),
            words.pick("leaf", value=shop.leaf[items], second=second, u=u[:, 6]),
            np.where(u[:, 4] < 0.6, glue(3, 7), 0),
            words.pick("stars", value=said, second=second, u=u[:, 8]),
            np.where(u[:, 9] < 0.7, words.pick("key", value=about, second=second, u=u[:, 10]), 0),
            np.where(u[:, 9] < 0.7, named[np.arange(n), about], 0),
            np.where(u[:, 11] < 0.5, cost, 0),
        ],
        -1,
    )
    return squeeze(misspell(mall, tokens=tokens, ids=key, name="review typo"), length=REVIEW)


def queries(
    mall: Mall, *, leaf: np.ndarray, wished: np.ndarray, users: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Words of a search: the noun, and with some luck what the user always wants (`wished` [n, attributes]).

    A request that is no search has leaf -1 and no words.
    """
    words = lexicon(mall)
    key = users.astype(np.int64) * (1 << 32) + times
    u = uniforms(mall.seed, name="query", ids=key, draws=16)
    second = uniforms(mall.seed, name="user language", ids=users, draws=1)[:, 0] < mall.views.second_language
    asked = [
        np.where(u[:, 6 + j] < 0.25, words.pick(name, value=wished[:, j], second=second, u=u[:, j]), 0)
        for j, name in enumerate(ATTRIBUTES)
    ]
    noun = words.pick("leaf", value=leaf, second=second, u=u[:, 12])
    tokens = np.where((leaf >= 0)[:, None], np.stack([*asked, noun], -1), 0)
    return squeeze(misspell(mall, tokens=tokens, ids=key, name="query typo"), length=QUERY)
