"""Users: stable and drifting interests, style wishes, attribute and price preferences, novelty seeking."""

from dataclasses import dataclass, fields

import numpy as np

from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, STYLE, THEMES, Catalogue
from data.mall.rng import choose, stream

SEGMENTS = 12


@dataclass(frozen=True)
class Users:
    """One block of users; arrays by user [u] and interest [k]."""

    id: np.ndarray
    leaf: np.ndarray  # [u, k]
    before: np.ndarray  # [u, k] weight of each interest when the log begins
    after: np.ndarray  # [u, k] and when it ends
    wish: np.ndarray  # [u, k, STYLE]
    favourite: np.ndarray  # [u, attribute]
    price: np.ndarray
    thrift: np.ndarray  # how much a distance in price hurts
    novelty: np.ndarray
    segment: np.ndarray
    sessions: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    def weights(self, now: np.ndarray, *, horizon: int) -> np.ndarray:
        """Interest weights [u, k] at second `now`, on the line from `before` to `after`."""
        a = np.clip(now / horizon, 0.0, 1.0)[:, None]
        return (1.0 - a) * self.before + a * self.after

    def rows(self, at: np.ndarray) -> "Users":
        """The users at these places of the block, repeats allowed."""
        return Users(**{f.name: getattr(self, f.name)[at] for f in fields(self)})


def users(mall: Mall, *, shop: Catalogue, shard: int) -> Users:
    block = mall.dims.user_block
    ids = np.arange(shard * block, min((shard + 1) * block, mall.n_users))
    n, k = len(ids), mall.interests
    rng = stream(mall.seed, name="users", shard=shard)
    home = choose(shop.leaf_weight, uniform=rng.random(n))
    leaf = choose(shop.leaf_weight, uniform=rng.random(n * k)).reshape(n, k)
    leaf[:, 0] = home
    before = rng.dirichlet(np.ones(k), n)
    moved = rng.dirichlet(np.ones(k), n)
    share = mall.drift * rng.random((n, 1))
    theme = rng.integers(0, THEMES, (n, k))
    wish = shop.themes[theme] + 0.3 * rng.normal(size=(n, k, STYLE)) / np.sqrt(STYLE)
    price = rng.normal(size=n)
    favourite = np.stack([rng.integers(0, values, n) for values in ATTRIBUTES.values()], -1)
    tops = shop.leaf_top[home]
    return Users(
        id=ids,
        leaf=leaf,
        before=before.astype(np.float32),
        after=((1.0 - share) * before + share * moved).astype(np.float32),
        wish=wish.astype(np.float32),
        favourite=favourite,
        price=price.astype(np.float32),
        thrift=rng.gamma(2.0, 0.5, n).astype(np.float32),
        novelty=rng.beta(1.5, 4.0, n).astype(np.float32),
        segment=(3 * tops + np.digitize(price, [-0.5, 0.5])) % SEGMENTS,
        sessions=1 + rng.binomial(2 * mall.dims.sessions - 2, 0.5, n),
    )


def everyone(mall: Mall, *, shop: Catalogue) -> Users:
    """The users of all blocks."""
    blocks = [users(mall, shop=shop, shard=s) for s in range(mall.shards)]
    return Users(**{f.name: np.concatenate([getattr(block, f.name) for block in blocks]) for f in fields(Users)})


def favourites(mall: Mall, *, shop: Catalogue) -> np.ndarray:
    """[all users, attribute]"""
    return everyone(mall, shop=shop).favourite
