"""Searches by photo: what was asked with, what was shown for it, what was clicked; and the truth behind.

The photo is a listing's page image. Candidates are other listings of its product, of its leaf, and some of neither; the
shop shows what is popular more often than what fits. A click needs an examined slot and a listing like the photo:

    logit r = base + product·[same product] + leaf·[same leaf] + style·(s_q·s_i) + colour·[same] + pattern·[same]
              + quality·q + luck·l

`uniform_*` are slots of the same request filled by chance and looked at by everyone: what an unbiased log would hold.
"""

from functools import lru_cache

import chz
import numpy as np

from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.events import Table
from data.mall.exposure import examination, first_of_each
from data.mall.latents import Catalogue
from data.mall.listing_pairs import NOBODY, another
from data.mall.rng import choose, gumbel, sigmoid, stream

BLOCK = 1 << 14  # requests simulated at once


@chz.chz
class ImageSearch:
    mall: Mall = chz.field(default_factory=Mall)
    requests: int = 50_000
    slots: int = chz.field(default=6, doc="of a page")
    pool: int = chz.field(default=16, doc="candidates of a request")
    popularity: float = chz.field(default=1.5, doc="exponent of a candidate's popularity in what is shown")
    fit: float = chz.field(default=0.5, doc="weight of the true relevance's logit in what is shown")
    base: float = chz.field(default=-4.0, doc="logit of a listing that is nothing like the photo")
    product: float = 3.5
    leaf: float = 1.5
    style: float = 1.0
    colour: float = 1.0
    pattern: float = 0.5
    quality: float = 0.2
    luck: float = 0.2


@lru_cache(maxsize=2)
def searches(law: ImageSearch) -> Table:
    """Columns by request: user, time, query; and [requests, slots]: item, click, relevance, and those of uniform_."""
    shop, seed = shop_of(law.mall), law.mall.seed
    parts: list[Table] = []
    for shard, start in enumerate(range(0, law.requests, BLOCK)):
        rng = stream(seed, name="image search", shard=shard)
        parts.append(_block(law, shop=shop, rng=rng, count=min(BLOCK, law.requests - start)))
    table = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    order = np.argsort(table["time"], kind="stable")
    return {name: column[order] for name, column in table.items()}


def clicked(law: ImageSearch, *, start: int, end: int) -> Table:
    """User, query and item of each click within a time."""
    log = searches(law)
    request, slot = np.nonzero(log["click"] & ((log["time"] >= start) & (log["time"] < end))[:, None])
    return {"user": log["user"][request], "query": log["query"][request], "item": log["item"][request, slot]}


def _block(law: ImageSearch, *, shop: Catalogue, rng: np.random.Generator, count: int) -> Table:
    query = choose(shop.weight, uniform=rng.random(count))
    pool = _candidates(law, shop=shop, query=query, rng=rng)
    logit = like_the_photo(law, shop=shop, query=query, items=pool)
    allowed = first_of_each(pool) & (pool != query[:, None]) & (pool != NOBODY)
    seen = examination(law.mall.exposure, slots=law.slots)[None]
    wish = law.popularity * np.log(shop.weight[pool]) + law.fit * logit
    table = {
        "user": rng.integers(0, law.mall.n_users, count),
        "time": rng.integers(0, law.mall.horizon, count),
        "query": query,
    }
    for prefix, score, looked in (("", wish, seen), ("uniform_", 0.0, np.ones_like(seen))):
        noisy = np.where(allowed, score + gumbel(rng, pool.shape), -np.inf)
        slot = np.argsort(-noisy, axis=1)[:, : law.slots]
        relevance = sigmoid(np.take_along_axis(logit, slot, 1)).astype(np.float32)
        table[f"{prefix}item"] = np.take_along_axis(pool, slot, 1)
        table[f"{prefix}relevance"] = relevance
        table[f"{prefix}click"] = rng.random(relevance.shape) < relevance * looked
    return table


def _candidates(law: ImageSearch, *, shop: Catalogue, query: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n, pool]: two of the product where it has as many, three in four of the leaf, the rest of anything."""
    near = law.pool - 2 - law.pool // 4
    luck = rng.random((len(query), 2 + near))
    twins = [another(shop.spu, among=query, luck=u) for u in luck.T[:2]]
    alike = [another(shop.leaf, among=query, luck=u) for u in luck.T[2:]]
    stray = rng.integers(0, len(shop), (len(query), law.pool // 4))
    return np.concatenate([np.stack([*twins, *alike], axis=1), stray], axis=1)


def like_the_photo(law: ImageSearch, *, shop: Catalogue, query: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The logit of relevance [n, k] of listings for a photo [n]."""
    asked, spu = shop.spu[query], shop.spu[items]
    attributes = shop.spu_attributes[spu] == shop.spu_attributes[asked][:, None]
    return (
        law.base
        + law.product * (spu == asked[:, None])
        + law.leaf * (shop.leaf[items] == shop.leaf[query][:, None])
        + law.style * np.einsum("nd,nkd->nk", shop.spu_style[asked], shop.spu_style[spu])
        + law.colour * attributes[..., 0]
        + law.pattern * attributes[..., 1]
        + law.quality * shop.spu_quality[spu]
        + law.luck * shop.luck[items]
    )
