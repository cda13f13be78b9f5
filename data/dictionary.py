"""A dictionary of behaviours: which raw tokens of a log stand for something, and under which name.

Logs of several products say the same thing in many ways, and most of what they say means nothing. The rules, in order:
people who are machines are left out; a token loses what follows "?" or "#", its case and its slashes; a token that came
out of use becomes its category; a token a slip of the keys away from one that many more people have is taken for it;
what few people have, or nearly everybody, goes. What a dictionary has cleaned it does not change again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST

DAY = 86_400


@chz.chz
class Cleaning:
    """The rules' numbers."""

    least: int = chz.field(default=5, doc="people who must have a token")
    most: float = chz.field(default=0.3, doc="share of the people above which a token says nothing of them")
    busy: float = chz.field(default=20.0, doc="events a day of a machine, as a multiple of the median person's")
    hours: int = chz.field(default=20, doc="hours of the 24 in which a machine is seen at least")
    stale: float | None = chz.field(default=14.0, doc="days unseen after which a token gives way to its category")
    slips: tuple[str, ...] = chz.field(default=("search/",), doc="beginnings of tokens that people type")
    rarer: float = chz.field(default=0.2, doc="share of the other's people that a mistyped token has at most")

    @chz.validate
    def _check(self) -> None:
        if self.least < 1 or not 0 < self.most <= 1:
            raise ValueError("least counts people, from 1; most is a share, above 0 and at most 1")


@dataclass(frozen=True)
class Events:
    """A log: who, when (seconds) and the raw token, by row."""

    user: np.ndarray
    time: np.ndarray
    token: np.ndarray

    def rows(self, at: np.ndarray) -> "Events":
        return Events(self.user[at], self.time[at], self.token[at])


@dataclass(frozen=True)
class Dictionary:
    """`tokens` by id - FIRST, `names` from a raw token to the one it stands for; what is in neither means nothing."""

    tokens: tuple[str, ...]
    names: Mapping[str, str]
    machines: np.ndarray
    report: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return FIRST + len(self.tokens)

    def ids(self, raw: np.ndarray) -> np.ndarray:
        """Ids of raw tokens; 0 for what means nothing."""
        place = {token: FIRST + number for number, token in enumerate(self.tokens)}
        unique, inverse = np.unique(raw, return_inverse=True)
        known = np.array([place.get(self.names.get(canonical(t), ""), 0) for t in unique.tolist()], np.int32)
        return known[inverse] if len(unique) else np.zeros(0, np.int32)

    def clean(self, events: Events) -> Events:
        """The events of people that mean something, under their names."""
        ids = self.ids(events.token)
        keep = (ids > 0) & ~np.isin(events.user, self.machines)
        names = np.array(("", *self.tokens))[np.maximum(ids[keep] - FIRST + 1, 0)]
        return Events(events.user[keep], events.time[keep], names)


def canonical(token: str) -> str:
    token = token.split("?")[0].split("#")[0].lower().strip()
    return "/".join(part for part in token.split("/") if part)


def fit(events: Events, *, rules: Cleaning, category: Mapping[str, str] | None = None) -> Dictionary:
    """Learns the dictionary of a log; `category` is of canonical tokens."""
    if not len(events.user):
        raise UserError("there is no behaviour to make a dictionary of; check the log's path and period")
    bots = machines(events, rules=rules)
    kept = events.rows(~np.isin(events.user, bots))
    if not len(kept.user):
        raise UserError("every user looks like a machine: raise Cleaning.busy or Cleaning.hours")
    raw, inverse = np.unique(kept.token, return_inverse=True)
    names = {token: canonical(token) for token in raw.tolist()}
    merged = {name: name for name in names.values()}
    after = _counted(kept.user, [names[t] for t in raw.tolist()], inverse)
    if rules.stale is not None:
        stale = _stale(kept, names, raw, inverse, days=rules.stale)
        merged |= {name: category[name] for name in stale if category is not None and name in category}
    folded = {name: canonical(merged[name]) for name in merged}
    slips = _slips({n: after[n] for n in after if folded[n] == n}, rules=rules)
    folded = {name: slips.get(target, target) for name, target in folded.items()}
    held = _counted(kept.user, [folded[names[t]] for t in raw.tolist()], inverse)
    people = len(np.unique(kept.user))
    good = sorted(n for n, count in held.items() if rules.least <= count <= rules.most * people)
    known = set(good)
    if not known:
        raise UserError("no behaviour is left: lower Cleaning.least, or raise Cleaning.most")
    # A name stands for itself, so that a cleaned log is cleaned to the same.
    final = {name: target for name, target in folded.items() if target in known} | {name: name for name in good}
    covered = np.array([folded[names[t]] in known for t in raw.tolist()])[inverse].mean()
    counts = {
        "events": len(events.user),
        "machines": len(bots),
        "raw tokens": len(raw),
        "canonical": len(merged),
        "stale": sum(canonical(merged[n]) != n for n in merged),
        "slips": len(slips),
        "too few": sum(c < rules.least for c in held.values()),
        "too many": sum(c > rules.most * people for c in held.values()),
        "tokens": len(good),
        "coverage": float(covered),
    }
    return Dictionary(tuple(good), final, bots, counts)


def machines(events: Events, *, rules: Cleaning) -> np.ndarray:
    """Users with many times the median's events a day, at nearly every hour of the day."""
    user, inverse, count = np.unique(events.user, return_inverse=True, return_counts=True)
    days = np.unique(np.stack([inverse, events.time // DAY]), axis=1)[0]
    a_day = count / np.maximum(np.bincount(days, minlength=len(user)), 1)
    seen = np.unique(np.stack([inverse, events.time // 3600 % 24]), axis=1)[0]
    hours = np.bincount(seen, minlength=len(user))
    return user[(a_day > rules.busy * np.median(a_day)) & (hours >= rules.hours)]


def _counted(user: np.ndarray, named: list[str], inverse: np.ndarray) -> dict[str, int]:
    """People who have each name."""
    unique, number = np.unique(np.array(named), return_inverse=True)
    pairs = np.unique(np.stack([number[inverse], user]), axis=1)[0]
    return dict(zip(unique.tolist(), np.bincount(pairs, minlength=len(unique)).tolist(), strict=True))


def _stale(events: Events, names: Mapping[str, str], raw: np.ndarray, inverse: np.ndarray, *, days: float) -> set[str]:
    last: dict[str, int] = {}
    newest = np.zeros(len(raw), np.int64)
    np.maximum.at(newest, inverse, events.time)
    for token, time in zip(raw.tolist(), newest.tolist(), strict=True):
        last[names[token]] = max(last.get(names[token], 0), time)
    end = int(events.time.max())
    return {name for name, time in last.items() if end - time > days * DAY}


def _slips(people: Mapping[str, int], *, rules: Cleaning) -> dict[str, str]:
    """Mistyped token -> the one meant: one letter more, less, other, or two of them changed about."""
    typed = [name for name in people if name.startswith(rules.slips)] if rules.slips else []
    near: dict[str, list[str]] = {}
    for name in typed:
        for short in _without_one(name):
            near.setdefault(short, []).append(name)
    found: dict[str, str] = {}
    for name in typed:
        others = {other for short in _without_one(name) for other in near[short] if other != name}
        meant = [o for o in others if people[name] <= rules.rarer * people[o] and _one_slip(name, o)]
        if meant:
            found[name] = max(sorted(meant), key=lambda other: people[other])
    # A slip of a slip is taken for what that one is taken for.
    return {name: found.get(other, other) for name, other in found.items()}


def _without_one(name: str) -> set[str]:
    return {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}


def _one_slip(a: str, b: str) -> bool:
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return a[at:] == b[at + 1 :]
    return a[at + 1 :] == b[at + 1 :] or (a[at : at + 2] == b[at : at + 2][::-1] and a[at + 2 :] == b[at + 2 :])
