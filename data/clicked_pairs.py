"""Pairs out of a click log: what was asked with (the trigger) and what was taken (the offer), by rules of relevance."""

from typing import NamedTuple

import chz
import numpy as np

from data.whole_histories import popular_first


@chz.chz
class ClickRule:
    """Which clicks make a pair. The published system names its constraints, not its numbers."""

    users: int = chz.field(default=2, doc="distinct users who must have clicked the offer for the trigger")
    category: bool = chz.field(default=True, doc="only where both are of one leaf category")
    relevance: float = chz.field(default=0.0, doc="least relevance of an offer to its trigger")
    offers: int = chz.field(default=10, doc="of a trigger, the most clicked")

    @chz.validate
    def _sizes(self) -> None:
        if self.users < 1 or self.offers < 1:
            raise ValueError("users and offers are at least 1")


class Clicked(NamedTuple):
    """Pairs, sorted by trigger and then from the most clicked offer to the least; a number for each."""

    trigger: np.ndarray
    offer: np.ndarray
    users: np.ndarray


def clicked_pairs(
    *,
    trigger: np.ndarray,
    offer: np.ndarray,
    user: np.ndarray,
    rule: ClickRule,
    category: np.ndarray | None = None,
    relevance: np.ndarray | None = None,
) -> Clicked:
    """Of clicks, a row each. `category` is by item, `relevance` by row; a click of an item on itself is none."""
    keep = trigger != offer
    if rule.category:
        if category is None:
            raise ValueError("ClickRule.category needs the category of each item")
        keep &= category[trigger] == category[offer]
    if relevance is not None:
        keep &= relevance >= rule.relevance
    elif rule.relevance > 0:
        raise ValueError("ClickRule.relevance needs the relevance of each click")
    rows = np.unique(np.stack([trigger[keep], offer[keep], user[keep]], axis=1), axis=0)
    pairs, users = np.unique(rows[:, :2], axis=0, return_counts=True)
    often = users >= rule.users
    pairs, users = pairs[often], users[often]
    place = np.argsort(popular_first(offer, size=int(offer.max(initial=0)) + 1))
    order = np.lexsort((place[pairs[:, 1]], -users, pairs[:, 0]))
    pairs, users = pairs[order], users[order]
    place = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    first = place < rule.offers
    return Clicked(pairs[first, 0], pairs[first, 1], users[first])


def co_clicked(pairs: Clicked, *, width: int) -> np.ndarray:
    """[pairs, width] the other offers of each pair's trigger, the most clicked first; -1 where there are no more."""
    start = np.searchsorted(pairs.trigger, pairs.trigger)
    end = np.searchsorted(pairs.trigger, pairs.trigger, side="right")
    at = start[:, None] + np.arange(width + 1)
    there = (at < end[:, None]) & (at != np.arange(len(at))[:, None])
    found = np.where(there, pairs.offer[np.minimum(at, len(pairs.offer) - 1)] if len(at) else at, -1)
    order = np.argsort(~there, axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)[:, :width]


def words_in_common(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[n] share of two texts' words that both have, of rows of token ids padded with 0; 0 where neither has any."""
    both = ((left[:, :, None] == right[:, None, :]) & (left > 0)[:, :, None]).any(axis=2).sum(axis=1)
    every = (left > 0).sum(axis=1) + (right > 0).sum(axis=1) - both
    return both / np.maximum(every, 1)
