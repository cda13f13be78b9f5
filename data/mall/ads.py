"""The ad side: campaigns with budgets and bids, creatives that wear out, second-price auctions and their log."""

from dataclasses import dataclass

import numpy as np

from data.mall.config import DAY, Mall
from data.mall.events import Log, Table
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import choose, sigmoid, stream
from data.mall.truth import relevance_logit
from data.mall.users import Users

CREATIVES = 3
POINTS = ("quality", "price", "brand", *ATTRIBUTES)  # what a selling-point phrase can be about
CHUNK = DAY // 4


@dataclass(frozen=True)
class Campaigns:
    """Arrays by campaign [c] and its creatives [c, CREATIVES]; sorted by leaf."""

    item: np.ndarray
    value: np.ndarray  # of a click
    budget: np.ndarray  # of a day, over the whole mall
    start: np.ndarray
    end: np.ndarray
    point: np.ndarray  # [c, k] number of the selling point in POINTS
    craft: np.ndarray  # [c, k] how well the creative is made
    launch: np.ndarray  # [c, k]
    half_life: np.ndarray  # [c, k] seconds
    retired: np.ndarray  # [c, k] second, or -1 if it still ran at the end of the log
    leaf_start: np.ndarray


def campaigns(mall: Mall, *, shop: Catalogue) -> Campaigns:
    rng, law = stream(mall.seed, name="campaigns"), mall.ads
    n = min(len(shop), max(8 * shop.leaves, len(shop) // 10))
    item = rng.choice(len(shop), n, replace=False)
    item = item[np.argsort(shop.leaf[item], kind="stable")]
    start = np.maximum(shop.arrival[item], (rng.random(n) * 0.5 * mall.horizon).astype(np.int64))
    start = np.where(rng.random(n) < 0.5, shop.arrival[item], start)
    end = start + (DAY * (7 + rng.exponential(14.0, n))).astype(np.int64)
    value = law.value * np.exp(law.spread * rng.normal(size=n))
    launch = start[:, None] + (rng.random((n, CREATIVES)) * 5 * DAY).astype(np.int64)
    launch[:, 0] = start
    half = (DAY * (3.0 + rng.gamma(2.0, 5.0, (n, CREATIVES)))).astype(np.int64)
    # an owner notices late that a creative is worn and takes it down
    retired = np.minimum(launch + (half * (1.0 + rng.exponential(0.7, half.shape))).astype(np.int64), end[:, None])
    retired[:, 0] = end
    return Campaigns(
        item=item,
        value=value.astype(np.float32),
        budget=(law.budget * mall.n_users / n * value * np.exp(0.8 * rng.normal(size=n))).astype(np.float32),
        start=start,
        end=end,
        point=rng.integers(0, len(POINTS), (n, CREATIVES)),
        craft=(0.4 * rng.normal(size=(n, CREATIVES))).astype(np.float32),
        launch=launch,
        half_life=half,
        retired=np.where(retired < mall.horizon, retired, -1),
        leaf_start=np.searchsorted(shop.leaf[item], np.arange(shop.leaves + 1)),
    )


def wear_out(mall: Mall, *, ads: Campaigns, campaign: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Logit lost by each creative of each campaign at a moment: wear * log2(1 + age / half-life)."""
    age = np.maximum(now[..., None] - ads.launch[campaign], 0)
    return -mall.ads.wear * np.log2(1.0 + age / ads.half_life[campaign])


def phrase_fit(*, shop: Catalogue, people: Users, ads: Campaigns, campaign: np.ndarray, who: np.ndarray) -> np.ndarray:
    """[n, k] in 0..1: whether the selling point is true of the product and cared for by the user."""
    item = ads.item[campaign]
    spu = shop.spu[item]
    point = ads.point[campaign]
    liked = (shop.spu_attributes[spu] == people.favourite[who]).astype(np.float64)
    fit = np.concatenate(
        [
            sigmoid(2.0 * shop.spu_quality[spu])[:, None],
            sigmoid(-2.0 * shop.price_level[item] * people.thrift[who])[:, None],
            np.full((len(spu), 1), 0.4),
            liked,
        ],
        -1,
    )
    return np.take_along_axis(fit, point, 1)


def auctions(mall: Mall, *, shop: Catalogue, ads: Campaigns, people: Users, log: Log, shard: int) -> Table:
    """One ad slot per request. A shard is a region with its share of each budget, so that shards stand alone."""
    law, rng = mall.ads, stream(mall.seed, name="auctions", shard=shard)
    asked = log.requests
    order = np.argsort(asked["time"], kind="stable")
    time, user, leaf = asked["time"][order], asked["user"][order], asked["session_leaf"][order]
    who, n = user - people.id[0], len(order)
    rivals = _rivals(shop=shop, ads=ads, leaf=leaf, bidders=law.bidders, rng=rng)
    rate, creative, odds = _rates(
        mall, shop=shop, ads=ads, people=people, asked={"time": time, "leaf": leaf, "who": who}, rivals=rivals, rng=rng
    )
    guess = np.clip(rate * np.exp(law.error * rng.normal(size=rate.shape)), 1e-4, 1.0)
    value = ads.value[rivals] * np.exp(0.2 * rng.normal(size=rate.shape))
    market = law.market * np.exp(0.7 * rng.normal(size=n))
    luck = rng.random(n)
    live = (ads.start[rivals] <= time[:, None]) & (time[:, None] < ads.end[rivals]) & (odds > 0)
    out = {
        "winner": np.full(n, -1),
        "bid": np.zeros((n, law.bidders), np.float32),
        "price": np.zeros(n, np.float32),
        "click": np.zeros(n, bool),
    }
    budget = ads.budget * len(people) / mall.n_users
    spent = np.zeros(len(ads.item))
    for lo, hi, fresh_day in _chunks(time, horizon=mall.horizon):
        if fresh_day:
            spent[:] = 0.0
        rows = slice(lo, hi)
        pool = rivals[rows]
        left = np.maximum(1.0 - spent / budget, 0.0)[pool]
        day = 1.0 - (time[rows, None] % DAY) / DAY
        pace = np.clip(left / np.maximum(day, 0.05), 0.2, 1.0)  # shade the bid when money runs faster than time
        bid = np.where(live[rows] & (left > 0), value[rows] * pace, 0.0)
        sold = _second_price(bid, guess=guess[rows], market=market[rows], reserve=law.reserve)
        at = np.arange(hi - lo)
        click = (sold["winner"] >= 0) & (luck[rows] < rate[rows][at, sold["winner"]])
        np.add.at(spent, pool[at, sold["winner"]], np.where(click, sold["price"], 0.0))
        out["winner"][rows], out["price"][rows] = sold["winner"], sold["price"]
        out["bid"][rows], out["click"][rows] = bid, click
    won, at = out["winner"] >= 0, np.arange(n)
    taken = np.where(won, rivals[at, out["winner"]], -1)
    return {
        "user": user,
        "time": time,
        "campaign": taken,
        "item": np.where(won, ads.item[taken], -1),
        "creative": np.where(won, creative[at, out["winner"]], -1),
        "creative_propensity": np.where(won, odds[at, out["winner"]], 0).astype(np.float32),
        "bidders": rivals.astype(np.int32),
        "bids": out["bid"],
        "predicted": guess.astype(np.float32),
        "market": market.astype(np.float32),
        "price": out["price"],
        "click": out["click"],
        "true_ctr": np.where(won, rate[at, out["winner"]], 0).astype(np.float32),
    }


def _rivals(*, shop: Catalogue, ads: Campaigns, leaf: np.ndarray, bidders: int, rng: np.random.Generator) -> np.ndarray:
    """Campaigns of the request's leaf, and of any leaf where that one has too few; none twice in an auction."""
    n, total = len(leaf), len(ads.item)
    start = ads.leaf_start[leaf]
    width = ads.leaf_start[leaf + 1] - start
    shift = (rng.random(n) * np.maximum(width, 1)).astype(np.int64)
    k = np.arange(bidders)[None, :]
    own = start[:, None] + (shift[:, None] + k) % np.maximum(width, 1)[:, None]
    # strangers are the campaigns after the leaf's own, wrapping round: distinct by construction
    stranger = (ads.leaf_start[leaf + 1][:, None] + k - width[:, None]) % total
    return np.where(k < width[:, None], own, stranger)


def _rates(
    mall: Mall,
    *,
    shop: Catalogue,
    ads: Campaigns,
    people: Users,
    asked: dict[str, np.ndarray],
    rivals: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True click rate of each bidder with its chosen creative, that creative, and its propensity; all [n, bidders]."""
    law, (n, b) = mall.ads, rivals.shape
    who, now = np.repeat(asked["who"], b), np.repeat(asked["time"], b)
    pool = rivals.reshape(-1)
    running = (ads.launch[pool] <= now[:, None]) & ((ads.retired[pool] < 0) | (ads.retired[pool] > now[:, None]))
    soft = np.exp(2.0 * ads.craft[pool]) * running
    some = np.maximum(soft.sum(-1, keepdims=True), 1e-9)
    flat = running / np.maximum(running.sum(-1, keepdims=True), 1)
    chance = (1.0 - law.explore) * soft / some + law.explore * flat
    pick = choose(chance, uniform=rng.random(n * b))
    lift = (
        ads.craft[pool]
        - law.shy
        + law.phrase * phrase_fit(shop=shop, people=people, ads=ads, campaign=pool, who=who)
        + wear_out(mall, ads=ads, campaign=pool, now=now)
    )
    at = np.arange(n * b)
    logit = relevance_logit(
        mall,
        shop=shop,
        people=people.rows(asked["who"]),
        items=ads.item[rivals],
        now=asked["time"],
        session_leaf=asked["leaf"],
        query_leaf=np.full(n, -1),
        last=ads.item[rivals[:, 0]],
    )
    rate = sigmoid(logit + lift[at, pick].reshape(n, b))
    return rate, pick.reshape(n, b), chance[at, pick].reshape(n, b)


def _second_price(bid: np.ndarray, *, guess: np.ndarray, market: np.ndarray, reserve: float) -> dict[str, np.ndarray]:
    """Winner by bid times predicted rate; it pays per click the least bid that would still have won."""
    score = bid * guess
    rows = np.arange(len(score))
    best = score.argmax(-1)
    top = score[rows, best]
    score[rows, best] = -1.0
    rest = np.maximum(np.maximum(score.max(-1), market), reserve)
    won = top > rest
    return {"winner": np.where(won, best, -1), "price": np.where(won, rest / guess[rows, best], 0.0)}


def _chunks(time: np.ndarray, *, horizon: int):
    """Row ranges of a quarter of a day each, and whether a new day begins; budgets are checked between them."""
    edges = np.searchsorted(time, np.arange(0, horizon + DAY + 1, CHUNK))
    for c in range(len(edges) - 1):
        if edges[c] < edges[c + 1] or c % (DAY // CHUNK) == 0:
            yield edges[c], edges[c + 1], c % (DAY // CHUNK) == 0
