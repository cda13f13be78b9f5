"""The catalogue: category tree, products (SPU) with style, brand, attributes, price and quality, and their listings."""

from dataclasses import dataclass

import numpy as np

from data.mall.config import Mall
from data.mall.rng import choose, stream

STYLE = 16
THEMES = 6
ATTRIBUTES = {"colour": 8, "pattern": 4, "material": 6, "fit": 5, "season": 4}


@dataclass(frozen=True)
class Catalogue:
    """Arrays by leaf [L], product [S] and listing [N]. A listing is what the log calls an item."""

    leaf_top: np.ndarray
    leaf_mid: np.ndarray
    leaf_weight: np.ndarray
    leaf_complement: np.ndarray
    themes: np.ndarray  # [THEMES, STYLE], orthonormal
    spu_leaf: np.ndarray
    spu_brand: np.ndarray
    spu_theme: np.ndarray
    spu_style: np.ndarray  # [S, STYLE]
    spu_attributes: np.ndarray  # [S, len(ATTRIBUTES)]
    spu_price: np.ndarray  # log price against the leaf's level, in standard deviations
    spu_quality: np.ndarray
    spu_appeal: np.ndarray
    spu: np.ndarray
    leaf: np.ndarray
    seller: np.ndarray
    price: np.ndarray  # log price
    price_level: np.ndarray  # as spu_price, with the seller's margin
    luck: np.ndarray
    weight: np.ndarray  # Zipf popularity
    arrival: np.ndarray  # second; 0 for those there from the start
    successors: np.ndarray  # [N, 2]: of the same leaf, of the complementary leaf
    by_leaf: np.ndarray  # listings sorted by leaf
    cumulative: np.ndarray  # of weight in that order, with a leading 0
    leaf_start: np.ndarray  # [L + 1] offsets into by_leaf
    by_arrival: np.ndarray

    def __len__(self) -> int:
        return len(self.spu)

    @property
    def leaves(self) -> int:
        return len(self.leaf_top)

    def draw(self, leaf: np.ndarray, *, uniform: np.ndarray) -> np.ndarray:
        """Listings of these leaves by popularity, arrived or not."""
        start, end = self.leaf_start[leaf], self.leaf_start[leaf + 1]
        at = self.cumulative[start] + uniform * (self.cumulative[end] - self.cumulative[start])
        place = np.searchsorted(self.cumulative, at, side="right") - 1
        return self.by_leaf[np.clip(place, start, end - 1)]

    def first(self, leaf: np.ndarray) -> np.ndarray:
        """A listing of each leaf that was there from the start."""
        return self.by_leaf[self.leaf_start[leaf]]

    def draw_arrived(self, leaf: np.ndarray, *, now: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """As `draw`, among what has arrived; after four tries the leaf's first listing."""
        item = self.draw(leaf, uniform=rng.random(leaf.shape))
        now = np.broadcast_to(now, leaf.shape)
        for _ in range(3):
            early = self.arrival[item] > now
            item[early] = self.draw(leaf[early], uniform=rng.random(int(early.sum())))
        return np.where(self.arrival[item] > now, self.first(leaf), item)

    def draw_fresh(self, *, now: np.ndarray, window: int, uniform: np.ndarray) -> np.ndarray:
        """Listings that arrived within `window` seconds before now; the latest ones if none did."""
        times = self.arrival[self.by_arrival]
        end = np.searchsorted(times, now, side="right")
        start = np.minimum(np.searchsorted(times, np.maximum(now - window, 1)), end - 1)
        return self.by_arrival[start + (uniform * (end - start)).astype(np.int64)]


def catalogue(mall: Mall) -> Catalogue:
    size, n = mall.dims, mall.n_items
    a, b, c = size.tree
    leaves = a * b * c
    if n < 4 * leaves:
        raise ValueError(f"items={n} is too few for {leaves} leaf categories; give at least {4 * leaves}")
    tree = _tree(mall, leaves=leaves)
    spus = _products(mall, leaves=leaves, leaf_weight=tree["leaf_weight"], count=max(leaves, n // 2))
    return Catalogue(**tree, **spus, **_listings(mall, spus=spus, complement=tree["leaf_complement"]))


def _tree(mall: Mall, *, leaves: int) -> dict[str, np.ndarray]:
    _, b, c = mall.dims.tree
    rng = stream(mall.seed, name="tree")
    leaf = np.arange(leaves)
    weight = (1.0 + rng.permutation(leaves)) ** -0.5
    shift = rng.permutation(leaves)
    ring = np.empty(leaves, np.int64)  # one cycle through all leaves, so that none complements itself
    ring[shift] = np.roll(shift, -1)
    return {
        "leaf_top": leaf // (b * c),
        "leaf_mid": leaf // c,
        "leaf_weight": weight / weight.sum(),
        "leaf_complement": ring,
    }


def _products(mall: Mall, *, leaves: int, leaf_weight: np.ndarray, count: int) -> dict[str, np.ndarray]:
    rng = stream(mall.seed, name="products")
    themes = np.linalg.qr(stream(mall.seed, name="themes").normal(size=(STYLE, STYLE)))[0][:THEMES]
    # every leaf gets a product; the others follow the leaf's weight
    leaf = np.concatenate([np.arange(leaves), choose(leaf_weight, uniform=rng.random(count - leaves))])
    brand = (rng.random(count) ** 1.5 * mall.dims.brands).astype(np.int64)
    brand_price = rng.normal(size=mall.dims.brands) * 0.5
    brand_theme = rng.permutation(mall.dims.brands) % THEMES
    theme = np.where(rng.random(count) < 0.7, brand_theme[brand], rng.integers(0, THEMES, count))
    style = 0.9 * themes[theme] + 0.4 * rng.normal(size=(count, STYLE)) / np.sqrt(STYLE)
    quality = rng.normal(size=count)
    attributes = np.empty((count, len(ATTRIBUTES)), np.int64)
    for j, values in enumerate(ATTRIBUTES.values()):
        direction = rng.normal(size=(STYLE, values)) * 2.0
        score = np.einsum("sd,dv->sv", style, direction) - np.log(rng.exponential(size=(count, values)))
        attributes[:, j] = score.argmax(-1)
    charm = rng.normal(size=STYLE)
    appeal = np.einsum("sd,d->s", style, charm)
    return {
        "themes": themes.astype(np.float32),
        "spu_leaf": leaf,
        "spu_brand": brand,
        "spu_theme": theme,
        "spu_style": style.astype(np.float32),
        "spu_attributes": attributes,
        "spu_price": (0.3 * quality + brand_price[brand] + 0.7 * rng.normal(size=count)).astype(np.float32),
        "spu_quality": quality.astype(np.float32),
        "spu_appeal": ((appeal - appeal.mean()) / appeal.std()).astype(np.float32),
    }


def _listings(mall: Mall, *, spus: dict[str, np.ndarray], complement: np.ndarray) -> dict[str, np.ndarray]:
    rng = stream(mall.seed, name="listings")
    n, count = mall.n_items, len(spus["spu_leaf"])
    # every product has a listing, the rest are second offers; ids carry no meaning
    spu = rng.permutation(np.concatenate([np.arange(count), rng.integers(0, count, n - count)]))
    leaf = spus["spu_leaf"][spu]
    margin = 0.2 * rng.normal(size=n)
    level = spus["spu_price"][spu] + margin
    base = stream(mall.seed, name="leaf price").normal(size=len(complement)) + 3.5
    arrival = np.where(rng.random(n) < mall.arriving, rng.integers(1, mall.horizon, n), 0)
    by_leaf = np.lexsort((rng.random(n), leaf))
    start = np.searchsorted(leaf[by_leaf], np.arange(len(complement) + 1))
    arrival[by_leaf[start[:-1]]] = 0
    rank = np.empty(n, np.int64)
    rank[np.lexsort((rng.random(n), leaf))] = np.arange(n) - start[leaf[by_leaf]]
    weight = (rank + 3.0) ** -mall.zipf
    cumulative = np.concatenate([[0.0], np.cumsum(weight[by_leaf])])
    theme = spus["spu_theme"][spu]
    same, across = _successors(leaf, theme=theme, complement=complement, rng=rng)
    return {
        "spu": spu,
        "leaf": leaf,
        "seller": (rng.random(n) ** 2 * mall.dims.sellers).astype(np.int64),
        "price": (base[leaf] + 0.5 * level).astype(np.float32),
        "price_level": level.astype(np.float32),
        "luck": rng.normal(size=n).astype(np.float32),
        "weight": weight.astype(np.float32),
        "arrival": arrival,
        "successors": np.stack([same, across], -1),
        "by_leaf": by_leaf,
        "cumulative": cumulative,
        "leaf_start": start,
        "by_arrival": np.argsort(arrival, kind="stable"),
    }


def _successors(
    leaf: np.ndarray, *, theme: np.ndarray, complement: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The next listing of leaf and theme (a ring), and one of the same theme, if any, in the complementary leaf."""
    n, groups = len(leaf), len(complement) * THEMES
    group = leaf * THEMES + theme
    order = np.lexsort((rng.random(n), group))
    start = np.searchsorted(group[order], np.arange(groups + 1))
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    width = start[group + 1] - start[group]
    same = order[start[group] + (place - start[group] + 1) % width]
    other = complement[leaf] * THEMES + theme
    empty = start[other + 1] == start[other]
    low = np.where(empty, start[complement[leaf] * THEMES], start[other])
    high = np.where(empty, start[(complement[leaf] + 1) * THEMES], start[other + 1])
    return same, order[low + (rng.random(n) ** 2 * (high - low)).astype(np.int64)]
