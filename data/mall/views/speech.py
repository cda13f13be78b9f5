"""Recognised speech of a live stream: a few facts about the product among chatter."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import uniforms
from data.mall.views.text import price_band
from data.mall.views.title import in_second_language, misspell
from data.mall.views.words import CHATTER, lexicon

LENGTH = 64
KINDS = (*ATTRIBUTES, "price")


def speech(
    mall: Mall, *, shop: Catalogue, items: np.ndarray, occasion: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens [n, LENGTH]; where each fact's word stands [n, facts]; and its number in KINDS [n, facts].

    A fact is the pair (key, value): the word at the given place and the one before it. On another `occasion` other
    facts about the same listing are said, in other words.
    """
    items = np.asarray(items)
    words, spu, n, facts = lexicon(mall), shop.spu[items], len(items), min(mall.views.facts, len(KINDS))
    second = in_second_language(mall, items=items)
    u = uniforms(mall.seed, name=f"{occasion}chatter", ids=items, draws=2 * LENGTH)
    topic = (u[:, :LENGTH] ** 2 * CHATTER).astype(np.int64)
    tokens = words.pick("chatter", value=topic, second=second[:, None], u=u[:, LENGTH:])
    v = uniforms(mall.seed, name=f"{occasion}facts", ids=items, draws=len(KINDS) + 3 * facts)
    kind = v[:, : len(KINDS)].argsort(-1)[:, :facts]
    values = np.concatenate([shop.spu_attributes[spu], price_band(shop, items=items)[:, None]], -1)
    room = LENGTH // facts
    rows = np.arange(n)
    place = np.empty((n, facts), np.int64)
    for f in range(facts):
        place[:, f] = f * room + 1 + (v[:, len(KINDS) + f] * (room - 1)).astype(np.int64)
        coin = v[:, len(KINDS) + facts + f]
        said = np.stack(
            [words.pick(k, value=values[:, j], second=second, u=coin) for j, k in enumerate(KINDS)],
            -1,
        )
        tokens[rows, place[:, f]] = said[rows, kind[:, f]]
        tokens[rows, place[:, f] - 1] = words.pick(
            "key", value=kind[:, f], second=second, u=v[:, len(KINDS) + 2 * facts + f]
        )
    return misspell(mall, tokens=tokens, ids=items, name="speech error").astype(np.int32), place, kind
