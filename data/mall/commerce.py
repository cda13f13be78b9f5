"""After the click: carts, purchases with delay, baskets and bundles, ratings that are missing not at random, uplift."""

import numpy as np

from data.mall.config import DAY, Mall
from data.mall.events import Log, Table
from data.mall.latents import Catalogue
from data.mall.rng import sigmoid, stream
from data.mall.users import Users

ARMS = ("none", "coupon", "message")


def bundles(mall: Mall, *, shop: Catalogue) -> np.ndarray:
    """[n, 4] listings: a head and the walk over complements from it, all of one theme where there is one."""
    rng = stream(mall.seed, name="bundles")
    head = np.sort(rng.choice(len(shop), max(4, len(shop) // 20), replace=False))
    chain = [head]
    for _ in range(3):
        chain.append(shop.successors[chain[-1], 1])
    return np.stack(chain, -1)


def conversions(mall: Mall, *, shop: Catalogue, people: Users, log: Log, shard: int) -> Table:
    """One row per click: cart, purchase, delay, and the true chance of a purchase."""
    law, rng = mall.commerce, stream(mall.seed, name="conversions", shard=shard)
    row = {name: column[log.impressions["click"]] for name, column in log.impressions.items()}
    item = row["item"]
    p_cart, p_buy = purchase_chances(mall, shop=shop, people=people, row=row)
    n = len(item)
    cart = rng.random(n) < p_cart
    buy = cart & (rng.random(n) < p_buy)
    delay = (law.delay_hours * 3600.0 * rng.weibull(law.delay_shape, n)).astype(np.int64)
    cart_time = row["time"] + 40 + rng.integers(0, 300, n)
    return {
        "user": row["user"],
        "item": item,
        "time": row["time"],
        "cart": cart,
        "cart_time": np.where(cart, cart_time, -1),
        "buy": buy,
        "buy_time": np.where(buy, cart_time + delay, -1),
        "true_cvr": (p_cart * p_buy).astype(np.float32),
    }


def purchase_chances(mall: Mall, *, shop: Catalogue, people: Users, row: Table) -> tuple[np.ndarray, np.ndarray]:
    """Of impressions: the chance of a cart after a click, and of a purchase after a cart."""
    law, item, who = mall.commerce, row["item"], row["user"] - people.id[0]
    quality = shop.spu_quality[shop.spu[item]]
    wanted = np.log(row["relevance"] + 1e-6) - np.log1p(1e-6 - row["relevance"])
    apart = np.abs(shop.price_level[item] - people.price[who]) * people.thrift[who]
    p_cart = sigmoid(law.cart + 0.5 * wanted + 0.5 * quality)
    return p_cart, sigmoid(law.buy + 0.4 * quality - 0.4 * (apart - 0.8))


def purchases(mall: Mall, *, shop: Catalogue, clicks: Table, shard: int) -> Table:
    """One row per bought item; rows of one basket share `basket`. `via`: 0 click, 1 complement, 2 bundle."""
    law, rng = mall.commerce, stream(mall.seed, name="purchases", shard=shard)
    bought = np.flatnonzero(clicks["buy"])
    item, n = clicks["item"][bought], len(bought)
    sets = bundles(mall, shop=shop)
    place = np.minimum(np.searchsorted(sets[:, 0], item), len(sets) - 1)
    whole = (sets[place, 0] == item) & (rng.random(n) < law.bundle)
    pair = ~whole & (rng.random(n) < law.together)
    basket = np.arange(n)
    extra = [(pair, shop.successors[item, 1], 1)] + [(whole, sets[place, k], 2) for k in (1, 2, 3)]
    rows = np.concatenate([basket] + [basket[m] for m, _, _ in extra])
    items = np.concatenate([item] + [i[m] for m, i, _ in extra])
    via = np.concatenate([np.zeros(n, np.int8)] + [np.full(m.sum(), v, np.int8) for m, _, v in extra])
    time = clicks["buy_time"][bought][rows]
    there = shop.arrival[items] <= time
    rows, items, via, time = rows[there], items[there], via[there], time[there]
    discount = np.where(via == 2, 0.9, 1.0)
    table = {
        "user": clicks["user"][bought][rows],
        "item": items,
        "time": time,
        "basket": shard * (np.int64(1) << 32) + rows,
        "via": via,
        "price": (np.exp(shop.price[items]) * discount).astype(np.float32),
    }
    order = np.lexsort((via, time, table["user"]))
    return {name: column[order] for name, column in table.items()}


def ratings(mall: Mall, *, shop: Catalogue, people: Users, bought: Table, shard: int) -> Table:
    """Stars of every purchase; only rows with `observed` are in a real log, the others are the truth behind it."""
    law, rng = mall.commerce, stream(mall.seed, name="ratings", shard=shard)
    spu = shop.spu[bought["item"]]
    who = bought["user"] - people.id[0]
    mine = shop.leaf[bought["item"]][:, None] == people.leaf[who]
    agree = np.einsum("nd,nkd->nk", shop.spu_style[spu], people.wish[who])
    joy = 0.8 * shop.spu_quality[spu] + (mine * agree).max(-1) + 0.6 * rng.normal(size=len(spu))
    stars = 1 + np.digitize(joy, [-1.0, -0.3, 0.5, 1.3])
    propensity = sigmoid(law.rated + law.missing * (stars - 3.0))
    return {
        "user": bought["user"],
        "item": bought["item"],
        "time": bought["time"] + DAY + rng.integers(0, 3 * DAY, len(spu)),
        "stars": stars,
        "observed": rng.random(len(spu)) < propensity,
        "propensity": propensity.astype(np.float32),
    }


def treatments(mall: Mall, *, people: Users, shard: int) -> Table:
    """A trial of three arms, and the true chance of a visit under each: uplift is the difference from arm 0.

    Coupons move the thrifty; messages move those who seek novelty and chase the others away.
    """
    rng = stream(mall.seed, name="treatments", shard=shard)
    n = len(people)
    base = -1.2 + 0.15 * (people.sessions - people.sessions.mean()) + 0.5 * rng.normal(size=n)
    coupon = base + 0.7 * (people.thrift - 0.6)
    message = base + 2.5 * (people.novelty - 0.22)
    truth = sigmoid(np.stack([base, coupon, message], -1))
    # the thrifty got coupons more often than others: assignment is confounded, with known propensities
    lean = np.stack([np.zeros(n), 0.4 * (people.thrift - 1.0), np.zeros(n)], -1)
    propensity = np.exp(lean) / np.exp(lean).sum(-1, keepdims=True)
    arm = (rng.random((n, 1)) > np.cumsum(propensity, -1)[:, :-1]).sum(-1)
    rows = np.arange(n)
    return {
        "user": people.id,
        "arm": arm,
        "propensity": propensity[rows, arm].astype(np.float32),
        "visit": rng.random(n) < truth[rows, arm],
        "p_none": truth[:, 0].astype(np.float32),
        "uplift_coupon": (truth[:, 1] - truth[:, 0]).astype(np.float32),
        "uplift_message": (truth[:, 2] - truth[:, 0]).astype(np.float32),
    }
