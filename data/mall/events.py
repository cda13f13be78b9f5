"""The log of one block of users: organic views, requests, slates and clicks, step by step for all users at once."""

from dataclasses import dataclass

import numpy as np

from data.mall.config import DAY, Mall
from data.mall.exposure import choose_slate, click_probability, first_of_each
from data.mall.latents import Catalogue
from data.mall.rng import choose, gumbel, stream
from data.mall.truth import relevance, relevance_logit
from data.mall.users import Users, users

Table = dict[str, np.ndarray]


@dataclass(frozen=True)
class Log:
    """Tables of one shard, or of all shards joined. Rows are sorted by (user, time)."""

    requests: Table
    impressions: Table
    actions: Table  # organic views and clicks: what a history is made of


@dataclass(frozen=True)
class Page:
    """One request of every user of a block."""

    request: Table
    impressions: Table
    clicked: np.ndarray
    choice: np.ndarray  # the last item clicked, where one was


def simulate(mall: Mall, *, shop: Catalogue, shard: int) -> Log:
    people = users(mall, shop=shop, shard=shard)
    size, n = mall.dims, len(people)
    rngs = {
        name: stream(mall.seed, name=name, shard=shard) for name in ("time", "organic", "request", "policy", "click")
    }
    starts = np.sort(rngs["time"].random((n, 2 * size.sessions - 1)), axis=-1)
    # the sessions that a user does not have are dropped at random, not the last ones
    drop = rngs["time"].random(starts.shape).argsort(-1).argsort(-1) >= people.sessions[:, None]
    last = shop.draw_arrived(people.leaf[:, 0], now=np.zeros(n), rng=rngs["organic"])
    requests, impressions, actions = [], [], []
    for s in range(starts.shape[1]):
        live = ~drop[:, s]
        now = (starts[:, s] * (mall.horizon - DAY)).astype(np.int64)
        topic = _interest(people, now=now, mall=mall, rng=rngs["time"])
        for _ in range(size.requests):
            now = now + 60 + rngs["time"].integers(0, 600, n)
            view = _organic(mall, shop=shop, people=people, last=last, topic=topic, now=now, rng=rngs["organic"])
            last = np.where(live, view, last)
            actions.append(_rows(live, user=people.id, time=now, item=view, click=np.zeros(n, bool)))
            step = _request(mall, shop=shop, people=people, last=last, topic=topic, now=now + 30, rngs=rngs)
            requests.append(_rows(live, **step.request))
            impressions.append(_rows(live, **step.impressions))
            last = np.where(live & step.clicked, step.choice, last)
            clicks = step.impressions["click"] & live[:, None]
            where, slot = np.nonzero(clicks)
            actions.append(
                {
                    "user": people.id[where],
                    "time": now[where] + 31 + 3 * slot,
                    "item": step.impressions["item"][where, slot],
                    "click": np.ones(len(where), bool),
                }
            )
    return Log(
        requests=_sorted(join(requests)), impressions=_sorted(_flat(join(impressions))), actions=_sorted(join(actions))
    )


def _interest(people: Users, *, now: np.ndarray, mall: Mall, rng: np.random.Generator) -> np.ndarray:
    """Number of the interest that a session is about."""
    return choose(people.weights(now, horizon=mall.horizon), uniform=rng.random(len(people)))


def _organic(
    mall: Mall,
    *,
    shop: Catalogue,
    people: Users,
    last: np.ndarray,
    topic: np.ndarray,
    now: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """What users open by themselves: a successor of the last item, something of the topic, or anything."""
    n = len(people)
    rows = np.arange(n)
    mine = np.where(rng.random(n) < 0.7, topic, _interest(people, now=now, mall=mall, rng=rng))
    leaf = np.repeat(people.leaf[rows, mine][:, None], 4, axis=1)
    options = shop.draw_arrived(leaf, now=now[:, None], rng=rng)
    agree = np.einsum("ucd,ud->uc", shop.spu_style[shop.spu[options]], people.wish[rows, mine])
    wanted = options[rows, (5.0 * agree + gumbel(rng, agree.shape)).argmax(-1)]
    follow = shop.successors[last, (rng.random(n) < 0.4).astype(np.int64)]
    stray = shop.draw_arrived(choose(shop.leaf_weight, uniform=rng.random(n)), now=now, rng=rng)
    why = rng.random(n)
    view = np.where(why < mall.follow, follow, np.where(why < mall.follow + mall.noise, stray, wanted))
    return np.where(shop.arrival[view] > now, wanted, view)


def _request(
    mall: Mall,
    *,
    shop: Catalogue,
    people: Users,
    last: np.ndarray,
    topic: np.ndarray,
    now: np.ndarray,
    rngs: dict[str, np.random.Generator],
) -> Page:
    """One page for every user: a query or the feed, candidates, slate, clicks."""
    n, bias, slots = len(people), mall.exposure, mall.dims.slate
    rows = np.arange(n)
    rng = rngs["request"]
    session_leaf = people.leaf[rows, topic]
    query = np.where(rng.random(n) < bias.search, session_leaf, -1)
    items = _candidates(mall, shop=shop, people=people, last=last, query=query, now=now, rng=rng)
    logit = relevance_logit(
        mall, shop=shop, people=people, items=items, now=now, session_leaf=session_leaf, query_leaf=query, last=last
    )
    # the policy sees a blurred relevance and loves what is popular
    score = logit + bias.error * rng.normal(size=logit.shape) + bias.popularity * np.log(shop.weight[items])
    allowed = first_of_each(items) & (shop.arrival[items] <= now[:, None])
    chosen, propensity = choose_slate(bias, score=score, allowed=allowed, slots=slots, rng=rngs["policy"])
    wanted = relevance(np.take_along_axis(logit, chosen, 1))
    slot = np.broadcast_to(np.arange(slots), (n, slots))
    probability = click_probability(bias, relevance=wanted, slots=slot)
    click = rngs["click"].random((n, slots)) < probability
    item = np.take_along_axis(items, chosen, 1)
    first = click_probability(bias, relevance=relevance(logit), slots=np.zeros_like(items))
    wide = {"user": people.id, "time": now, "query": query, "segment": people.segment, "session_leaf": session_leaf}
    return Page(
        request={**wide, "candidates": items, "allowed": allowed, "uniform_ctr": _mean(first, where=allowed)},
        impressions={
            **wide,
            "item": item,
            "slot": slot,
            "click": click,
            "propensity": propensity,
            "relevance": wanted.astype(np.float32),
            "true_ctr": probability.astype(np.float32),
        },
        clicked=click.max(-1),
        choice=item[rows, slots - 1 - click[:, ::-1].argmax(-1)],
    )


def _candidates(
    mall: Mall,
    *,
    shop: Catalogue,
    people: Users,
    last: np.ndarray,
    query: np.ndarray,
    now: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """[u, c]: of the query or the interests, successors of the last item, recent arrivals, and strays."""
    n, c = len(people), mall.exposure.candidates
    fresh = max(1, round(mall.exposure.fresh * c))
    own = c - fresh - 6
    weights = np.repeat(people.weights(now, horizon=mall.horizon)[:, None, :], own, axis=1)
    leaf = np.take_along_axis(people.leaf, choose(weights, uniform=rng.random((n, own))), 1)
    leaf = np.where((query >= 0)[:, None], query[:, None], leaf)
    stray = choose(shop.leaf_weight, uniform=rng.random(4 * n)).reshape(n, 4)
    listed = shop.draw_arrived(np.concatenate([leaf, stray], 1), now=now[:, None], rng=rng)
    # recent arrivals are shown to those who may like them: the first of four that falls in an interest
    wide = np.repeat(now[:, None], 4 * fresh, 1)
    new = shop.draw_fresh(now=wide, window=7 * DAY, uniform=rng.random((n, 4 * fresh))).reshape(n, fresh, 4)
    fits = (shop.leaf[new][..., None] == people.leaf[:, None, None, :]).any(-1)
    new = np.take_along_axis(new, fits.argmax(-1)[..., None], 2)[..., 0]
    return np.concatenate([listed, new, shop.successors[last]], 1)


def _mean(values: np.ndarray, *, where: np.ndarray) -> np.ndarray:
    return ((values * where).sum(-1) / where.sum(-1)).astype(np.float32)


def _rows(live: np.ndarray, **columns: np.ndarray) -> Table:
    return {name: column[live] for name, column in columns.items()}


def join(tables: list[Table]) -> Table:
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


def _flat(table: Table) -> Table:
    """One row per impression instead of one per page."""
    slots = table["item"].shape[1]
    return {name: c.reshape(-1) if c.ndim == 2 else np.repeat(c, slots) for name, c in table.items()}


def _sorted(table: Table) -> Table:
    order = np.lexsort(
        (table["slot"], table["time"], table["user"]) if "slot" in table else (table["time"], table["user"])
    )
    return {name: column[order] for name, column in table.items()}
