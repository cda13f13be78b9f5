"""The funnel: retrieve -> rank -> calibrate -> decide, for one user at a time, with a reason for every candidate.

folder/
  funnel.json        the config; its paths are relative to the folder
  ranker/  towers/  indexes/  features/ ...   what it names, unless it is elsewhere
  [examples.json]    raw fields of a few users, for its page

A user's fields are encoded as batch scoring encodes rows, with the same code, and scored by the same exported program:
the score of a candidate here is the score of the row written out. `open_funnel` opens all parts and refuses those that
do not belong together. A funnel answers alike every time, but for items that came to its live indexes or left them, and
threads may share it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.manifest import read_json, sha256
from serve.channels import Asked, Candidate, ContentChannel, Source, gather, open_channel, open_part
from serve.decide.rules import decide
from serve.display import Showcase
from serve.features.store import Item
from serve.funnel_config import FUNNEL, FunnelConfig, read_config
from serve.funnel_indexes import Indexes
from serve.index.attributes import Attributes
from serve.index.where import Where
from serve.ranker import Ranker


@dataclass(frozen=True)
class Request:
    """One page for one user.

    `candidates` take the place of retrieval; `item` and `vector` stand for what channels would read of the user; by
    `text` and `picture` (the bytes of a file) channels by content search. `skip` names channels, rank, calibrate, caps,
    diversity or auction. `shown` counts, by column and value, what the user has seen (caps per user); `bids` replace
    those of the feature store.
    """

    user: Mapping[str, Any]
    item: Item | None = None
    vector: Any = None
    text: str | None = None
    picture: bytes | None = None
    candidates: Sequence[Item] | None = None
    k: int | None = None
    where: Where | Mapping[str, Any] | None = None
    skip: frozenset[str] = frozenset()
    shown: Mapping[str, Mapping[Any, int]] = field(default_factory=dict)
    bids: Mapping[Item, float] = field(default_factory=dict)
    explain: bool = False


@dataclass(frozen=True)
class Ranked:
    """`scores` by stage: retrieve (merged), rank, calibrate, and in an auction ecpm and price (of a click)."""

    id: Item
    scores: dict[str, float]
    sources: dict[str, Source] = field(default_factory=dict)
    why: str | None = None
    """Why a dropped one is not on the page, after the stage that dropped it: "rank: it has no features"."""


@dataclass(frozen=True)
class Answer:
    """`dropped` is filled where the request asks to explain; `seconds` by stage, and `total`."""

    items: list[Ranked]
    dropped: list[Ranked]
    seconds: dict[str, float]
    versions: dict[str, str]


class Funnel:
    """Opened by `open_funnel`."""

    def __init__(self, config: FunnelConfig, *, folder: Path, version: str, indexes: Indexes):
        self.config, self.folder, self.indexes = config, folder, indexes
        self.channels = {name: open_channel(c, folder=folder, indexes=indexes) for name, c in config.channels.items()}
        self.features = open_part(config.features, folder=folder)
        self.ranker = Ranker(config, folder=folder, features=self.features)
        self.versions = {"funnel": version, "ranker": self.ranker.version, "features": self.features.version}
        for name, channel in self.channels.items():
            self.versions |= {f"{name}/{part}": made for part, made in channel.versions.items()}
        self.fields = frozenset().union(self.ranker.fields, *(c.fields for c in self.channels.values()))
        """All fields of a user that any part reads."""
        unknown = sorted(set(config.defaults) - self.fields)
        if unknown:
            raise UserError(f"{folder / FUNNEL}: a default is set for {unknown[0]!r}, which no part reads")
        by_content = [c for c in self.channels.values() if isinstance(c, ContentChannel)]
        self.reads: frozenset[str] = frozenset().union(*(c.reads for c in by_content))
        """text, picture: what of a request channels by content search by."""
        store = config.display.store
        shown = self.features if store is None else open_part(store, folder=folder)
        if store is not None:
            self.versions["display"] = shown.version
        self.showcase = Showcase(config.display, folder=folder, store=shown, features=self.features)
        self.showcase.read_examples(folder, fields=self.fields)

    def answer(self, request: Request) -> Answer:
        """The page, best first, and what was dropped on the way."""
        clock = _Clock()
        user, where, k = self._checked(request)
        ranks = "rank" not in request.skip
        rows = self.ranker.encode_user(user) if ranks else {}  # what is wrong with the user is said before any search
        with clock("retrieve"):
            found, dropped = self._candidates(request, user=user, where=where)
        ids = [candidate.id for candidate in found]
        with clock("features"):
            looked = self.ranker.look_up(ids)
        scores: dict[str, np.ndarray] = {"retrieve": np.array([candidate.score for candidate in found])}
        why = np.full(len(found), "", object)
        final = scores["retrieve"]
        if ranks:
            with clock("rank"):
                scores["rank"], why = self.ranker.score(user, rows=rows, looked=looked)
            final = scores["rank"]
            if self.ranker.calibration is not None and "calibrate" not in request.skip:
                with clock("calibrate"):
                    final = scores["calibrate"] = self.ranker.calibration(final)
        with clock("decide"):
            left = np.flatnonzero(why == "")
            place = {ids[at]: new for new, at in enumerate(left.tolist())}
            decided = decide(
                self.config.decide,
                scores=final[left],
                columns=looked.columns.take(left),
                k=k,
                shown=request.shown,
                bids={place[id]: bid for id, bid in request.bids.items() if id in place},
                skip=request.skip,
            )
        why[left] = [reason and f"decide: {reason}" for reason in decided.why]
        for name, values in (("ecpm", decided.ecpm), ("price", decided.price)):
            if values is not None:
                scores[name] = np.full(len(found), np.nan)
                scores[name][left] = values
        made = [self._ranked(c, scores=scores, at=at, why=why[at] or None) for at, c in enumerate(found)]
        items = [made[at] for at in left[decided.order].tolist()]
        dropped += [ranked for ranked in made if ranked.why is not None]
        return Answer(items, dropped if request.explain else [], clock.seconds(), dict(self.versions))

    def retrieve(self, request: Request) -> list[Ranked]:
        """Candidates with their sources, best first: what `answer` would rank."""
        user, where, _ = self._checked(request)
        found, _ = self._candidates(request, user=user, where=where)
        return [Ranked(c.id, {"retrieve": c.score}, c.sources) for c in found]

    def warm(self) -> None:
        """Compiles what a request of any number of candidates up to the limit needs."""
        self.ranker.warm(most=self.config.merge.limit)

    def _checked(self, request: Request) -> tuple[dict[str, Any], Where | None, int]:
        stages = self.config.stages()
        for name in sorted(request.skip):
            if name not in stages:
                near = get_close_matches(name, stages, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(stages)}"
                raise UserError(f"skip names {name!r}, which this funnel does not have; {hint}")
        if "rank" in request.skip and self.config.decide.auction is not None and "auction" not in request.skip:
            raise UserError("an auction multiplies bids by the ranker's click rates: skip the auction too")
        for kind, given in (("text", request.text), ("picture", request.picture)):
            if given is not None and kind not in self.reads:
                raise UserError(f"no channel of this funnel searches by {kind}; leave it out")
        k = self.config.k if request.k is None else request.k
        if k < 1:
            raise UserError(f"k is {k}; a page has at least one item")
        where = request.where
        if where is not None and not isinstance(where, Where):
            where = Where.parse(where)
        return self._user(request), where, k

    def _user(self, request: Request) -> dict[str, Any]:
        for name in request.user:
            if name not in self.fields:
                near = get_close_matches(name, self.fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"they read {', '.join(sorted(self.fields))}"
                raise UserError(f"the user has a field {name!r} that no part of the funnel reads; {hint}")
        user = {**self.config.defaults, **request.user}
        wanted = set(self.ranker.fields) if "rank" not in request.skip else set()
        if request.candidates is None:
            open_ = [channel for name, channel in self.channels.items() if name not in request.skip]
            wanted |= {name for channel in open_ for name in channel.needs(Asked(user, request.item, request.vector))}
        missing = sorted(wanted - set(user))
        if missing:
            raise UserError(f"the user lacks the field {missing[0]!r}; a value that is not known is null")
        return user

    def _candidates(
        self, request: Request, *, user: Mapping[str, Any], where: Where | None
    ) -> tuple[list[Candidate], list[Ranked]]:
        """Those to rank, and of those that channels found beside them why they are not."""
        if request.candidates is not None:
            twice = len(request.candidates) - len(set(request.candidates))
            if twice:
                raise UserError(f"{twice} of the candidates stand twice; give each once")
            given = list(request.candidates)
            fits = np.ones(len(given), bool) if where is None else self._meets(where)(given)
            out = "retrieve: it does not meet the filter"
            return (
                [Candidate(id) for id, keep in zip(given, fits.tolist(), strict=True) if keep],
                [Ranked(id, {}, {}, out) for id, keep in zip(given, fits.tolist(), strict=True) if not keep],
            )
        asked = Asked(
            user,
            request.item,
            request.vector,
            where,
            None if where is None else self._meets(where),
            request.text,
            request.picture,
        )
        found = gather(self.config, opened=self.channels, asked=asked, skip=request.skip)
        limit = self.config.merge.limit
        why = f"retrieve: beyond the limit of {limit} candidates"
        return found[:limit], [Ranked(c.id, {"retrieve": c.score}, c.sources, why) for c in found[limit:]]

    def _meets(self, where: Where) -> Callable[[Sequence[Item]], np.ndarray]:
        names = [condition.name for condition in where.conditions]

        def meets(ids: Sequence[Item]) -> np.ndarray:
            looked = self.features.get(ids, names=names)
            return Attributes.of_table(looked.columns).mask(where, count=len(ids)) & looked.found

        return meets

    def _ranked(self, candidate: Candidate, *, scores: Mapping[str, np.ndarray], at: int, why: str | None) -> Ranked:
        held = {name: float(values[at]) for name, values in scores.items() if np.isfinite(values[at])}
        return Ranked(candidate.id, held, candidate.sources, why)


def open_funnel(folder: Path, *, write: bool = False, before: Funnel | None = None) -> Funnel:
    """Opens and checks every part of a folder that `build_funnel` wrote.

    With `write` its live indexes take updates; those that `before`, whose place it takes, holds open go on.
    """
    path = folder / FUNNEL
    if not path.is_file():
        raise UserError(f"{folder} is not a funnel: it has no {FUNNEL}")
    indexes = Indexes(folder, write=write, before=None if before is None else before.indexes)
    config, version = read_config(read_json(path), path=str(path)), sha256(path)[:12]
    try:
        return Funnel(config, folder=folder, version=version, indexes=indexes)
    except BaseException:
        indexes.close()
        raise


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self._spent[stage] = self._spent.get(stage, 0.0) + time.perf_counter() - begun

    def seconds(self) -> dict[str, float]:
        return {**self._spent, "total": time.perf_counter() - self._begun}
