"""Pairs of items that go together, out of what people saw and then clicked (NoteLLM, section 4.2)."""

from typing import NamedTuple

import chz
import numpy as np

from data.whole_histories import popular_first


@chz.chz
class CoViews:
    """Which pairs count. The published cut-offs are not known."""

    least: float = chz.field(default=0.05, doc="score below which a pair is chance")
    most: float = chz.field(default=30.0, doc="score above which a pair is what everybody sees")
    partners: int = chz.field(default=10, doc="of an item, those of the highest scores")
    within: int = chz.field(default=5, doc="views before a click that it follows from")


class Scored(NamedTuple):
    """Pairs, sorted by `first` and from the highest score down."""

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray


def co_views(*, user: np.ndarray, item: np.ndarray, click: np.ndarray, rule: CoViews) -> Scored:
    """score(A -> B) = Σ_u 1 / N_u over the users u who saw A and then clicked B, with N_u the items that u clicked.

    Rows are actions by user and time; a user counts once for a pair. Of equal scores the more popular item comes first.
    """
    clicked = np.unique(np.stack([user[click], item[click]]), axis=1)
    people, count = np.unique(clicked[0], return_counts=True)
    at = np.flatnonzero(click)
    found: list[np.ndarray] = []
    for back in range(1, rule.within + 1):
        here = at[at >= back]
        before = here - back
        fits = (user[before] == user[here]) & (item[before] != item[here])
        found.append(np.stack([item[before][fits], item[here][fits], user[here][fits]]))
    each = np.unique(np.concatenate(found, axis=1), axis=1)
    weight = 1.0 / count[np.searchsorted(people, each[2])]
    pairs, place = np.unique(each[:2], axis=1, return_inverse=True)
    score = np.bincount(place.reshape(-1), weights=weight, minlength=pairs.shape[1])
    keep = (score >= rule.least) & (score <= rule.most)
    first, second, score = pairs[0][keep], pairs[1][keep], score[keep]
    place = np.argsort(popular_first(item, size=int(item.max()) + 1))
    order = np.lexsort((place[second], -score, first))
    first, second, score = first[order], second[order], score[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    best = rank < rule.partners
    return Scored(first[best], second[best], score[best])
