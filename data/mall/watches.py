"""Short videos watched: a log that place and length bias, and the truth that an unbiased replay would find.

With r the liking of a person for the product of a video, σ of the click law's logit outside of any session plus `ease`,
and d its seconds, a video at place p of a feed is
    examined with examine^p,    watched half and more, if examined, with r, whatever its length,
    finished, if watched so far, with floor + (1 - floor) exp(-(d - shortest) / patience).
The feed shows short videos early: its places are filled one by one from popularity^fame exp(-d / haste).
"""

from typing import Literal

import chz
import numpy as np

from data.features import FIRST, Categorical, Features, Group, Label, Numeric, Truth
from data.mall.build import build
from data.mall.config import Mall
from data.mall.rng import gumbel, sigmoid, stream, uniforms
from data.mall.shoppers import MallShoppers
from data.mall.truth import relevance_logit
from data.mall.users import everyone
from data.sources import InMemory, SourceConfig

SHORT = 15.0
"""Seconds below which a video counts as short."""
MEAN, SPREAD = 45.0, 25.0
"""What takes seconds to numbers about 0 for a tower."""


@chz.chz
class Feed:
    """Weights of the laws above."""

    places: int = chz.field(default=10, doc="videos of one feed")
    feeds: int = chz.field(default=3, doc="feeds of each person; the last is the valid part")
    shortest: float = 5.0
    longest: float = 90.0
    examine: float = 0.97
    ease: float = chz.field(default=2.0, doc="of watching, above that of clicking, in logits")
    floor: float = chz.field(default=0.15, doc="share that finishes however long it takes")
    patience: float = chz.field(default=20.0, doc="seconds over which the others drop off")
    fame: float = 0.5
    haste: float = chz.field(default=25.0, doc="seconds over which the feed's liking for a video falls")


def seconds(mall: Mall, *, feed: Feed) -> np.ndarray:
    """The length of each item's video."""
    u = uniforms(mall.seed, name="video seconds", ids=np.arange(mall.n_items), draws=1)[:, 0]
    return (feed.shortest + (feed.longest - feed.shortest) * u).astype(np.float32)


def liking(mall: Mall, *, people: np.ndarray, items: np.ndarray, feed: Feed) -> np.ndarray:
    """[people, items] chance of watching half and more when the test period begins; `items` are one list for all, or
    [people, n] of each."""
    shop = build(mall).shop
    calm = chz.replace(mall, taste=chz.replace(mall.taste, session=0.0, successor=0.0, query=0.0))
    nothing = np.full(len(people), -1)
    logit = relevance_logit(
        calm,
        shop=shop,
        people=everyone(mall, shop=shop).rows(people),
        items=np.broadcast_to(items, (len(people), items.shape[-1])),
        now=np.full(len(people), mall.period("test")[0]),
        session_leaf=nothing,
        query_leaf=nothing,
        last=np.zeros(len(people), np.int64),
    )
    return sigmoid(logit + feed.ease)


def finishing(length: np.ndarray, *, feed: Feed) -> np.ndarray:
    """Chance that who has watched half watches all."""
    return feed.floor + (1 - feed.floor) * np.exp(-(length - feed.shortest) / feed.patience)


def viewers(mall: Mall, *, most: int) -> np.ndarray:
    """People who click in the test period, evenly spread; a replay is of them."""
    people = np.unique(MallShoppers(mall=mall, history=1, most=None).make().columns["user"])
    return people[np.unique(np.linspace(0, len(people) - 1, min(most, len(people))).astype(int))]


def new_videos(mall: Mall) -> np.ndarray:
    """Which items' videos no log has shown: they came after the training days."""
    return build(mall).shop.arrival >= mall.period("train")[1]


@chz.chz
class MallWatches(SourceConfig):
    """One row per video shown in a feed. "complete" is the usual label; "deep" half and more, true_deep its chance if
    examined, are what people get out of it. Videos that come later are in no feed."""

    mall: Mall = chz.field(default_factory=Mall)
    feed: Feed = chz.field(default_factory=Feed)
    split: Literal["train", "valid"] = "train"

    def make(self) -> InMemory:
        mall, feed = self.mall, self.feed
        users, length = np.arange(mall.n_users), seconds(mall, feed=feed)
        rng = stream(mall.seed, name="video feeds")
        shown = _fill(mall, feed=feed, length=length, rng=rng)
        luck = rng.random((3, *shown.shape))
        place = np.broadcast_to(np.arange(feed.places), shown.shape)
        chance = np.stack([liking(mall, people=users, items=shown[:, f], feed=feed) for f in range(feed.feeds)], axis=1)
        deep = (luck[0] < feed.examine**place) & (luck[1] < chance)
        complete = deep & (luck[2] < finishing(length[shown], feed=feed))
        part = slice(0, -1) if self.split == "train" else slice(-1, None)
        user = np.broadcast_to(users[:, None, None], shown.shape)
        columns = {
            "user": FIRST + user,
            "item": FIRST + shown,
            "place": FIRST + place,
            "seconds": (length[shown] - MEAN) / SPREAD,
            "true_seconds": length[shown],
            "complete": complete,
            "deep": deep,
            "true_deep": chance,
            "user_group": user,
        }
        flat = {name: value[:, part].reshape(-1) for name, value in columns.items()}
        return InMemory(flat, features=watch_features(mall, feed=feed))


@chz.chz
class MallReplay(SourceConfig):
    """Every video for each of some people, at the first place: what a ranking by a model is made of."""

    mall: Mall = chz.field(default_factory=Mall)
    feed: Feed = chz.field(default_factory=Feed)
    people: int = 200

    def make(self) -> InMemory:
        mall, items = self.mall, np.arange(self.mall.n_items)
        people = viewers(mall, most=self.people)
        chance = liking(mall, people=people, items=items, feed=self.feed)
        length = np.tile(seconds(mall, feed=self.feed), len(people))
        user, item = (grid.reshape(-1) for grid in np.meshgrid(people, items, indexing="ij"))
        columns = {
            "user": FIRST + user,
            "item": FIRST + item,
            "place": np.full(len(user), FIRST),
            "seconds": (length - MEAN) / SPREAD,
            "true_seconds": length,
            "complete": np.zeros(len(user)),
            "deep": np.zeros(len(user)),
            "true_deep": chance.reshape(-1),
            "user_group": user,
        }
        return InMemory(columns, features=watch_features(mall, feed=self.feed))


def watch_features(mall: Mall, *, feed: Feed) -> Features:
    return Features(
        all=(
            Categorical(name="user", role="user", rows=FIRST + mall.n_users),
            Categorical(name="item", role="item", rows=FIRST + mall.n_items),
            Categorical(name="place", role="context", rows=FIRST + feed.places),
            Numeric(name="seconds", role="item", transform="standard", mean=MEAN, scale=SPREAD),
            Label(name="complete"),
            Label(name="deep"),
            Truth(name="true_deep"),
            Truth(name="true_seconds"),
            Group(name="user_group"),
        )
    )


def _fill(mall: Mall, *, feed: Feed, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[users, feeds, places]: without replacement, by the largest of log weight plus Gumbel noise."""
    built = build(mall)
    there = np.flatnonzero(~new_videos(mall))
    log = built.log.impressions
    clicks = np.bincount(log["item"][log["click"] & (log["time"] < mall.period("train")[1])], minlength=mall.n_items)
    weight = feed.fame * np.log1p(clicks[there]) - length[there] / feed.haste
    shown = np.empty((mall.n_users, feed.feeds, feed.places), np.int64)
    for user in range(mall.n_users):
        noisy = weight[None] + gumbel(rng, (feed.feeds, len(there)))
        best = np.argpartition(-noisy, feed.places, axis=1)[:, : feed.places]
        order = np.argsort(-np.take_along_axis(noisy, best, axis=1), axis=1)
        shown[user] = there[np.take_along_axis(best, order, axis=1)]
    return shown
