"""Which k go on the page: the best that caps allow, traded against what is there already.

Diversity is maximal marginal relevance, Carbonell, Goldstein, SIGIR 1998: the next is the argmax of
weight x relevance - (1 - weight) x greatest similarity to those chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Similarity = Callable[[int], np.ndarray]
"""Place of a candidate to its similarity to all candidates."""


@dataclass(frozen=True)
class Limit:
    """At most `most` of one group, of which `seen` were shown before; group -1 is no group and has no limit."""

    name: str
    group: np.ndarray
    most: int
    seen: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Slate:
    """Places of the chosen in their order, and for each candidate the limit that kept it out, "" where none did."""

    chosen: np.ndarray
    blocked: np.ndarray


def choose(
    relevance: np.ndarray,
    *,
    k: int,
    similarity: Similarity | None = None,
    weight: float = 1.0,
    limits: Sequence[Limit] = (),
) -> Slate:
    """Of equal candidates the one that came first is taken; with weight 1 and no limits this is plain ranking."""
    value = np.asarray(relevance, np.float64)
    open_, blocked = np.ones(len(value), bool), np.full(len(value), "", object)
    counts = [dict(limit.seen) for limit in limits]
    for limit, count in zip(limits, counts, strict=True):
        for group in np.unique(limit.group[limit.group >= 0]).tolist():
            if count.setdefault(group, 0) >= limit.most:
                _close(limit.group == group, name=limit.name, open_=open_, blocked=blocked)
    nearest = np.full(len(value), -np.inf)
    chosen: list[int] = []
    while len(chosen) < k and open_.any():
        marginal = value
        if chosen and similarity is not None:
            nearest = np.maximum(nearest, similarity(chosen[-1]))
            marginal = weight * value - (1.0 - weight) * nearest
        best = int(np.argmax(np.where(open_, marginal, -np.inf)))
        chosen.append(best)
        open_[best] = False
        for limit, count in zip(limits, counts, strict=True):
            group = int(limit.group[best])
            if group >= 0:
                count[group] += 1
                if count[group] >= limit.most:
                    _close(limit.group == group, name=limit.name, open_=open_, blocked=blocked)
    return Slate(np.array(chosen, np.int64), blocked)


def _close(members: np.ndarray, *, name: str, open_: np.ndarray, blocked: np.ndarray) -> None:
    out = members & open_
    blocked[out] = name
    open_[out] = False


def by_vectors(vectors: np.ndarray) -> Similarity:
    """Cosine; a candidate without a vector (zeros) is like nothing."""
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return lambda place: unit @ unit[place]


def by_groups(group: np.ndarray) -> Similarity:
    """1 within a group, 0 across; group -1 is like nothing."""
    return lambda place: ((group == group[place]) & (group >= 0)).astype(np.float64)


def spread(values: np.ndarray) -> np.ndarray:
    """Onto 0 to 1, so that a weight between relevance and similarity means the same for every request."""
    values = np.asarray(values, np.float64)
    if not len(values) or values.max() == values.min():
        return np.zeros(len(values))
    return (values - values.min()) / (values.max() - values.min())
