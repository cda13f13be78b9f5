"""What a funnel is made of: retrieve (channels, merged) -> rank -> calibrate -> decide, as one typed config.

Paths are folders and files; in a built funnel they are relative to its folder. See docs/funnel.md.
"""

import sys
from collections.abc import Mapping
from typing import Any, Literal

import chz

import serve.decide.auction
import serve.decide.rules
from data.errors import UserError
from serve.decide.rules import RULES, Decide
from serve.signature import from_json

FUNNEL = "funnel.json"
STAGES = ("retrieve", "rank", "calibrate", "decide")
TAKEN = frozenset((*STAGES, *RULES, "features", "total"))


@chz.chz
class Channel:
    """One way to find candidates."""

    quota: int = chz.field(default=200, doc="most candidates that it brings")
    weight: float = chz.field(default=1.0, doc="of its scores where channels are merged")

    @chz.validate
    def _brings_something(self):
        if self.quota < 1 or not 0 < self.weight < float("inf"):
            raise ValueError(f"a channel has a quota from 1 and a weight above 0, not {self.quota} and {self.weight}")


@chz.chz
class ByTower(Channel):
    """Nearest to the vector that a tower gives for the user, or that the request brings."""

    index: str = chz.field(doc="folder of an index of item vectors")
    tower: str | None = chz.field(
        default=None, doc="artefact of the user's side, export --vectors query; None: the request brings the vector"
    )


@chz.chz
class ByItem(Channel):
    """Item to item: nearest to the vectors of the request's item, or of those that the user met last."""

    index: str = chz.field(doc="folder of an index of item vectors, such as those of a content encoder")
    vectors: str = chz.field(doc="feature store with the same vectors by id, in the column `vector`")
    seeds: str = chz.field(default="history", doc="field of the user with item ids, the newest last")
    last: int = chz.field(default=3, doc="seeds taken")


@chz.chz
class ByContent(Channel):
    """Nearest to what a request says or shows, in words, a picture or both; of a request without them it finds nothing.

    The towers give vectors of the index's own space: where its items are outputs joined end to end, such as item and
    query, a text is its output as often, export --vectors query,query.
    """

    index: str = chz.field(doc="folder of an index of item vectors by a content encoder")
    text: str | None = chz.field(default=None, doc="artefact that gives the vector of a text")
    picture: str | None = chz.field(default=None, doc="artefact that gives the vector of a picture")
    tokenizer: str | None = chz.field(
        default=None, doc="tokenizer.json of the texts, where the artefact brings none and takes token ids"
    )

    @chz.validate
    def _reads_something(self):
        if self.text is None and self.picture is None:
            raise ValueError("a channel by content needs an artefact for text, for picture, or both")
        if self.tokenizer is not None and self.text is None:
            raise ValueError("a tokenizer is of texts, which this channel does not read")


@chz.chz
class ByList(Channel):
    """A stored list, such as what is popular in a category."""

    lists: str = chz.field(doc="feature store with lists of item ids, best first")
    key: str | None = chz.field(default=None, doc="field of the user that names a list; None: always `default`")
    default: int | str | None = chz.field(default=None, doc="list for users whose key has none")
    items: str = chz.field(default="items", doc="column of the lists")


@chz.chz
class Merge:
    """Of all channels together. A candidate that several found keeps all its sources and the sum of its scores.

    rank: weight / (60 + rank), reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009), for channels whose
    scores mean different things; range: weight x the score spread from 0 (the channel's last) to 1 (its first) in this
    request.
    """

    normalise: Literal["rank", "range"] = "rank"
    limit: int = chz.field(default=400, doc="candidates that are ranked, the best of the merged list")

    @chz.validate
    def _some_are_ranked(self):
        if self.limit < 1:
            raise ValueError(f"a limit of {self.limit} leaves nothing to rank")


@chz.chz
class Elapsed:
    """A feature of the item that hangs on the moment of the request: of its age a store holds the date of birth."""

    name: str = chz.field(doc="feature of the ranker")
    since: str = chz.field(doc="column of the feature store, in seconds")
    until: str = chz.field(default="time", doc="field of the user with the moment of the request, in seconds")
    per: float = chz.field(default=86_400.0, doc="seconds of a unit")
    most: float | None = chz.field(default=None, doc="older ones are as old as this")


@chz.chz
class Display:
    """What people are shown of an item, which no model reads."""

    store: str | None = chz.field(
        default=None, doc="feature store with title and image; None: they are columns of the funnel's own"
    )
    title: str | None = chz.field(default=None, doc="column with the title")
    image: str | None = chz.field(default=None, doc="column with the bytes of a PNG, JPEG, GIF or WebP file")
    columns: tuple[str, ...] = chz.field(default=(), doc="further columns of the funnel's feature store")
    filters: tuple[str, ...] = chz.field(default=(), doc="those that people filter by")


@chz.chz
class FunnelConfig:
    channels: Mapping[str, Channel] = chz.field(
        doc="by name; of equal scores the earlier channel's candidate comes first"
    )
    ranker: str = chz.field(doc="artefact of a click tower, exported with --request")
    features: str = chz.field(doc="feature store of the items: a folder, or redis://HOST:PORT/DB#NAME")
    merge: Merge = chz.field(default_factory=Merge)
    score: str = chz.field(default="score", doc="output of the ranker that candidates are ordered by")
    calibration: str | None = chz.field(
        default=None, doc="what serve calibrate wrote; None where the artefact applies it, or nothing is sold"
    )
    decide: Decide = chz.field(default_factory=Decide)
    derived: tuple[Elapsed, ...] = ()
    defaults: Mapping[str, Any] = chz.field(
        default_factory=dict, doc="fields of the user that a request may leave out, such as the position on the page"
    )
    k: int = chz.field(default=10, doc="items of a page, where the request does not say")
    display: Display = chz.field(default_factory=Display)

    @chz.validate
    def _names_are_told_apart(self):
        if not self.channels:
            raise ValueError("a funnel needs at least one channel")
        taken = sorted(TAKEN & set(self.channels))
        if taken:
            raise ValueError(f"{taken[0]!r} is a stage and cannot name a channel")

    def stages(self) -> tuple[str, ...]:
        """What a request may skip: channels, calibrate, rules."""
        calibrate = () if self.calibration is None else ("calibrate",)
        return (*self.channels, "rank", *calibrate, *self.decide.rules())


def read_config(stored: Any, *, path: str) -> FunnelConfig:
    modules = (sys.modules[__name__], serve.decide.rules, serve.decide.auction)
    config = from_json(stored, modules=modules, what=path)
    if not isinstance(config, FunnelConfig):
        raise UserError(f"{path} is damaged: it does not hold a FunnelConfig")
    return config
