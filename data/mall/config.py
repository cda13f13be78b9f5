"""Mall: size, seed and knobs of the simulated shop."""

from dataclasses import dataclass
from typing import Literal

import chz

from data.mall.exposure import Exposure

DAY = 86_400


@dataclass(frozen=True)
class Size:
    users: int
    items: int
    tree: tuple[int, int, int]  # children at each level of the category tree
    brands: int
    sellers: int
    sessions: int  # mean per user
    requests: int  # per session
    slate: int
    user_block: int  # users simulated at once: one shard of the log


SIZES = {
    "tiny": Size(400, 300, (3, 2, 2), 12, 8, 4, 3, 4, 256),
    "small": Size(2_000, 1_000, (4, 2, 3), 24, 20, 5, 4, 5, 1_024),
    "default": Size(8_000, 4_000, (5, 3, 3), 60, 60, 5, 4, 5, 2_048),
    "large": Size(1_000_000, 1_000_000, (12, 6, 6), 5_000, 20_000, 5, 4, 5, 8_192),
}


@chz.chz
class Taste:
    """Weights of the click law; see docs/mall.md for the formula."""

    base: float = chz.field(default=-4.4, doc="logit of an item that means nothing to the user")
    interest: float = chz.field(default=1.2, doc="the leaf is one of the user's interests")
    style: float = chz.field(default=2.6, doc="style agrees with the user's wish in that interest")
    appeal: float = chz.field(default=0.5, doc="style that everybody likes")
    quality: float = chz.field(default=0.3, doc="hidden quality")
    luck: float = chz.field(default=0.3, doc="appeal of the listing that no view shows")
    price: float = chz.field(default=0.4, doc="distance from the user's price level")
    attributes: float = chz.field(default=0.2, doc="attribute value is the user's favourite")
    session: float = chz.field(default=0.8, doc="leaf is what this session is about")
    successor: float = chz.field(default=1.0, doc="item follows or complements the last one")
    novelty: float = chz.field(default=0.8, doc="unknown leaf, for users who seek novelty")
    query: float = chz.field(default=1.0, doc="penalty of a leaf that was not asked for")


@chz.chz
class Commerce:
    """Laws of what follows a click (commerce.py)."""

    cart: float = chz.field(default=-1.0, doc="logit of adding to the cart an item of relevance one half")
    buy: float = chz.field(default=0.0, doc="logit of buying what is in the cart")
    delay_hours: float = chz.field(default=10.0, doc="scale of the Weibull delay from click to purchase")
    delay_shape: float = chz.field(default=0.7, doc="its shape; below 1: most buy at once, some much later")
    together: float = chz.field(default=0.35, doc="chance that a purchase brings its complement along")
    bundle: float = chz.field(default=0.25, doc="chance that the head of a bundle is bought with all of it")
    missing: float = chz.field(default=1.0, doc="MNAR: logit by which a star more makes a rating visible")
    rated: float = chz.field(default=-0.5, doc="logit of rating a purchase of three stars")


@chz.chz
class Ads:
    """Laws of the ad side (ads.py)."""

    bidders: int = chz.field(default=6, doc="campaigns in an auction")
    value: float = chz.field(default=0.6, doc="median value of a click to an advertiser")
    spread: float = chz.field(default=0.5, doc="standard deviation of log values")
    budget: float = chz.field(default=0.15, doc="median clicks a day that all campaigns can pay for, per user")
    shy: float = chz.field(default=2.0, doc="logit that an advertisement loses against a result")
    reserve: float = chz.field(default=0.01, doc="lowest score (bid times predicted rate) that is sold")
    error: float = chz.field(default=0.3, doc="standard deviation of the log error of the predicted rate")
    market: float = chz.field(default=0.04, doc="median score of the best bidder outside the mall")
    wear: float = chz.field(default=0.9, doc="logit that a creative loses over its half-life of wear")
    phrase: float = chz.field(default=0.7, doc="logit of a phrase about what this user and product care for")
    explore: float = chz.field(default=0.3, doc="share of uniform choice among a campaign's creatives")


@chz.chz
class Views:
    """Noise of the views of a product."""

    second_language: float = chz.field(default=0.25, doc="share of texts in the second language")
    typo: float = chz.field(default=0.03, doc="chance that a word is misspelt")
    missing: float = chz.field(default=0.15, doc="share of attributes that a listing leaves out")
    no_image: float = chz.field(default=0.0, doc="share of listings whose page image is missing: all black")
    clutter: float = chz.field(default=0.7, doc="chance of a badge for the seller who loves them most")
    distractors: float = chz.field(default=0.4, doc="share of video frames without the product")
    live_noise: float = chz.field(default=0.16, doc="standard deviation of a live frame's pixels, of 1")
    facts: int = chz.field(default=4, doc="facts said in a stretch of speech")


@chz.chz
class Mall:
    """A shop with known truth. Equal configs give equal bytes, whatever the number of processes."""

    size: Literal["tiny", "small", "default", "large"] = "default"
    seed: int = 0
    users: int | None = chz.field(default=None, doc="overrides the size's number of users")
    items: int | None = chz.field(default=None, doc="overrides the size's number of listings")
    days: int = chz.field(default=28, doc="length of the log")
    train_until: float = chz.field(default=0.75, doc="share of the days for training")
    valid_until: float = chz.field(default=0.85, doc="share of the days before the test period")
    arriving: float = chz.field(default=0.35, doc="share of items that arrive while the log runs")
    zipf: float = chz.field(default=0.8, doc="exponent of popularity within a leaf category")
    interests: int = chz.field(default=4, doc="interests of a user")
    drift: float = chz.field(default=0.5, doc="largest share of interest weight that moves over the log")
    follow: float = chz.field(default=0.45, doc="organic views that follow a successor of the last item")
    noise: float = chz.field(default=0.15, doc="organic views of no reason")
    taste: Taste = chz.field(default_factory=Taste)
    exposure: Exposure = chz.field(default_factory=Exposure)
    commerce: Commerce = chz.field(default_factory=Commerce)
    ads: Ads = chz.field(default_factory=Ads)
    views: Views = chz.field(default_factory=Views)

    @property
    def dims(self) -> Size:
        return SIZES[self.size]

    @property
    def n_users(self) -> int:
        return self.users or self.dims.users

    @property
    def n_items(self) -> int:
        return self.items or self.dims.items

    @property
    def leaves(self) -> int:
        a, b, c = self.dims.tree
        return a * b * c

    @property
    def horizon(self) -> int:
        return self.days * DAY

    @property
    def shards(self) -> int:
        return -(-self.n_users // self.dims.user_block)

    def period(self, split: str) -> tuple[int, int]:
        """First second and end of a split of the temporal protocol."""
        a, b = int(self.train_until * self.horizon), int(self.valid_until * self.horizon)
        return {"train": (0, a), "valid": (a, b), "test": (b, 2 * self.horizon)}[split]
