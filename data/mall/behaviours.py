"""What people of the mall do in three products and an app, as a raw log: half of it noise, some of it by machines.

Listings that are viewed, clicked and bought ("shop/item/7?src=mail"), words that are searched for ("search/dress", now
and then mistyped), short videos that are watched ("video/12"), and what says nothing: the app opened, a page of one's
own session. Machines look at anything at all hours. The products' tokens share the people's interests alone.
"""

from dataclasses import dataclass

import numpy as np

from data.dictionary import Events
from data.mall.build import after, build
from data.mall.config import Mall
from data.mall.rng import stream
from data.mall.views.words import lexicon
from data.mall.watches import Feed, MallWatches

KINDS = ("view", "click", "buy", "search", "watch", "app")
PRODUCTS = ("shop", "search", "video", "app")
PRODUCT_OF = (0, 0, 0, 1, 2, 3)
"""Of each kind."""
SOURCES = ("", "?src=mail", "?src=home#top", "/")
JUNK = 0.3
MACHINES = 0.02


@dataclass(frozen=True)
class Behaviours:
    """`events` by user and time, with the kind of each and the listing behind it (-1: none)."""

    events: Events
    kind: np.ndarray
    item: np.ndarray

    def rows(self, at: np.ndarray) -> "Behaviours":
        return Behaviours(self.events.rows(at), self.kind[at], self.item[at])


def behaviours(mall: Mall, *, junk: float = JUNK, bots: float = MACHINES) -> Behaviours:
    """Of all people; machines have the numbers after theirs."""
    built, rng = build(mall), stream(mall.seed, name="behaviours")
    acts, bought = built.log.actions, after(mall)["purchases"]
    asked = {name: column[built.log.requests["query"] >= 0] for name, column in built.log.requests.items()}
    none = np.full(len(asked["user"]), -1)
    watched = _watches(mall, rng=rng)
    parts = [
        (acts["user"], acts["time"], _items(acts["item"], rng=rng), acts["click"].astype(int), acts["item"]),
        (bought["user"], bought["time"], _items(bought["item"], rng=rng), 2, bought["item"]),
        (asked["user"], asked["time"] - 1, _searches(mall, asked["query"], rng=rng), 3, none),
        watched,
        _junk(mall, share=junk, count=len(acts["user"]), rng=rng),
        _machines(mall, share=bots, rng=rng),
    ]
    kinds = np.concatenate([np.broadcast_to(kind, len(user)) for user, _, _, kind, _ in parts])
    user, time, token, item = (np.concatenate([part[i] for part in parts]) for i in (0, 1, 2, 4))
    order = np.lexsort((kinds, time, user))
    return Behaviours(Events(user, time, token), kinds, item).rows(order)


def categories(mall: Mall) -> dict[str, str]:
    """The token of each listing's leaf, for listings that came out of use."""
    leaf = build(mall).shop.leaf
    shop = {f"shop/item/{n}": f"shop/leaf/{leaf[n]}" for n in range(mall.n_items)}
    return shop | {f"video/{n}": f"video/leaf/{leaf[n]}" for n in range(mall.n_items)}


def _items(items: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    names = np.array([f"shop/item/{n}" for n in range(int(items.max(initial=0)) + 1)])
    return np.char.add(names[items], np.array(SOURCES)[rng.integers(0, len(SOURCES), len(items))])


def _searches(mall: Mall, leaves: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """The leaf's word, one in ten mistyped."""
    words = lexicon(mall)
    zero = np.zeros(mall.leaves, bool)
    token = words.pick("leaf", value=np.arange(mall.leaves), second=zero, u=np.zeros(mall.leaves))
    right = np.array([f"search/{words.strings[t]}" for t in token])
    wrong = np.array([f"search/{words.strings[t]}" for t in words.misspelt(token)])
    return np.where(rng.random(len(leaves)) < 0.1, wrong[leaves], right[leaves])


def _watches(mall: Mall, *, rng: np.random.Generator):
    """Videos that were watched to the half and more, each feed at a time of its own."""
    feed = Feed()
    source = MallWatches(mall=mall, feed=feed).make()
    user, item = source.columns["user_group"], source.columns["item"] - 2
    of_feed = np.arange(len(user)) // feed.places
    when = rng.integers(0, mall.period("train")[1], of_feed.max() + 1)[of_feed] + 40 * (np.arange(len(user)) % 10)
    deep = np.flatnonzero(source.columns["deep"] > 0)
    names = np.array([f"video/{n}" for n in range(mall.n_items)])
    return user[deep], when[deep], names[item[deep]], 4, item[deep]


def _junk(mall: Mall, *, share: float, count: int, rng: np.random.Generator):
    """Half is the app opened, half a page that nobody else has seen."""
    n = int(share * count)
    user, time = rng.integers(0, mall.n_users, n), rng.integers(0, mall.horizon, n)
    page = np.char.add("app/page/", rng.integers(0, 1 << 40, n).astype(str))
    return user, time, np.where(rng.random(n) < 0.5, "app/open", page), 5, np.full(n, -1)


def _machines(mall: Mall, *, share: float, rng: np.random.Generator):
    """A listing a minute, day and night, for two days."""
    number, each = max(1, round(share * mall.n_users)) if share else 0, 2 * 1440
    user = np.repeat(mall.n_users + np.arange(number), each)
    time = np.tile(60 * np.arange(each), number)
    item = rng.integers(0, mall.n_items, len(user))
    return user, time, _items(item, rng=rng), 0, item
