"""kNN-Embed: several interests of a user from vectors that are there already, without training.

El-Kishky et al., "kNN-Embed: Locally Smoothed Embedding Mixtures For Multi-interest Candidate Retrieval", arXiv
2205.06205. Items are clustered by spherical k-means. A user is a mixture: of each cluster c the share p(c|u) of the
user's items, and the mean of those items as the point to search from. Both are smoothed by the k nearest users N(u):
p(c|u) <- (1 - λ) p(c|u) + λ mean_{v in N(u)} p(c|v), and where u has no item in c, the mean of the neighbours' items.
Of m candidates cluster c gives ceil(m p(c|u)), its nearest to that mean, the likeliest cluster first.

The paper leaves open what happens where a cluster holds fewer than it is to give. Here the clusters after it move up,
and what is then still free goes to the nearest to the user's own vector.
"""

import numpy as np
from jaxtyping import Float, Int

from modules.layers.kmeans import unit

NONE = -1
BLOCK = 1 << 22  # products held at once
SLACK = 1e-9  # m p is a whole number where p is a share of counts, but for rounding


def shares(own: Int[np.ndarray, "u h"], *, label: Int[np.ndarray, " n"], clusters: int) -> Float[np.ndarray, "u c"]:
    """p(c|u): the share of each user's items in each cluster; zeros for who has none. `own` is -1 past the end."""
    user, at = np.nonzero(own >= 0)
    counts = np.zeros((len(own), clusters))
    np.add.at(counts, (user, label[own[user, at]]), 1.0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def smoothed(
    p: Float[np.ndarray, "u c"], *, neighbours: Int[np.ndarray, "u k"], weight: float
) -> Float[np.ndarray, "u c"]:
    """(1 - λ) p(c|u) + λ mean of the neighbours'; who has no item of their own has the neighbours' alone."""
    if not weight:
        return p
    mean = p[neighbours].mean(axis=1)
    mixed = np.where(p.sum(axis=1, keepdims=True) > 0, (1 - weight) * p + weight * mean, mean)
    return mixed / np.maximum(mixed.sum(axis=1, keepdims=True), 1e-12)


def quotas(
    p: Float[np.ndarray, "u c"], *, count: int, available: Int[np.ndarray, "u c"]
) -> tuple[Int[np.ndarray, "u c"], Int[np.ndarray, "u c"]]:
    """How many candidates each cluster gives, at most `available`, and the place of the first of them.

    ceil(m p(c|u)) of the likeliest cluster first, the lower number among equals, until m are given.
    """
    order = np.argsort(-p, axis=1, kind="stable")
    wanted = np.minimum(np.ceil(count * p - SLACK).astype(np.int64), available)
    wanted = np.take_along_axis(np.maximum(wanted, 0), order, axis=1)
    end = np.minimum(np.cumsum(wanted, axis=1), count)
    start = np.concatenate([np.zeros((len(p), 1), np.int64), end[:, :-1]], axis=1)
    given, first = np.empty_like(end), np.empty_like(end)
    np.put_along_axis(given, order, end - start, axis=1)
    np.put_along_axis(first, order, start, axis=1)
    return given, first


def nearest(
    queries: Float[np.ndarray, "q d"], points: Float[np.ndarray, "n d"], *, count: int, itself: bool = True
) -> Int[np.ndarray, "q k"]:
    """Rows of the `count` points of largest product, best first; the lower row among equals. Without `itself` query
    i does not find point i."""
    count = min(count, len(points) - (not itself))
    out = np.zeros((len(queries), count), np.int64)
    step = max(1, BLOCK // len(points))
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        scores = queries[rows] @ points.T
        if not itself:
            scores[np.arange(len(rows)), rows] = -np.inf
        out[rows] = best(scores, count=count)
    return out


def best(scores: Float[np.ndarray, "q n"], *, count: int) -> Int[np.ndarray, "q k"]:
    """Columns of the largest scores, best first, the lower column among equals."""
    if count < scores.shape[1]:
        # The count-th score decides, so that among equals it is not chance which of them is kept.
        least = -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count] if count else scores[:, :0]
        scores = np.where(scores >= least, scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def retrieve(
    users: Float[np.ndarray, "u d"],
    items: Float[np.ndarray, "n d"],
    *,
    own: Int[np.ndarray, "u h"],
    label: Int[np.ndarray, " n"],
    count: int,
    smoothing: float,
    neighbours: int,
    seen: Int[np.ndarray, "u s"] | None = None,
) -> Int[np.ndarray, "u m"]:
    """`count` items for each user; -1 past the end where there are not so many. `seen` are not shown.

    `own` and `seen` hold rows of `items`, -1 past the end.
    """
    users, items = np.asarray(users, np.float64), np.asarray(items, np.float64)
    clusters = int(label.max()) + 1
    near = nearest(unit(users), unit(users), count=neighbours, itself=False)
    p = smoothed(shares(own, label=label, clusters=clusters), neighbours=near, weight=smoothing)
    hidden = np.zeros((len(users), len(items)), bool)
    if seen is not None:
        user, at = np.nonzero(seen >= 0)
        hidden[user, seen[user, at]] = True
    members = [np.flatnonzero(label == c) for c in range(clusters)]
    available = np.stack([(~hidden[:, m]).sum(axis=1) for m in members], axis=1)
    given, first = quotas(p, count=min(count, len(items)), available=available)
    found = np.full((len(users), min(count, len(items))), NONE)
    for c, member in enumerate(members):
        who = np.flatnonzero(given[:, c])
        if not len(who):
            continue
        centre = _centres(who, own=own, near=near, items=items, inside=label == c)
        scores = np.where(hidden[np.ix_(who, member)], -np.inf, centre @ items[member].T)
        most = int(given[who, c].max())
        at = member[best(scores, count=most)]
        place = np.arange(most)
        row, which = np.nonzero(place < given[who, c][:, None])
        found[who[row], first[who[row], c] + which] = at[row, which]
    return _filled(found, users=users, items=items, hidden=hidden)


def _centres(who, *, own, near, items, inside) -> Float[np.ndarray, "w d"]:
    """The mean of each user's items in one cluster, or of their neighbours' where they have none."""

    def total(rows):
        kept = (rows >= 0) & inside[np.maximum(rows, 0)]
        return np.where(kept[..., None], items[np.maximum(rows, 0)], 0.0).sum(axis=1), kept.sum(axis=1)

    sums, counts = total(own[who])
    lone = np.flatnonzero(counts == 0)
    if len(lone):
        sums[lone], counts[lone] = total(own[near[who[lone]]].reshape(len(lone), -1))
    return sums / np.maximum(counts, 1)[:, None]


def _filled(found, *, users, items, hidden) -> Int[np.ndarray, "u m"]:
    """What the clusters left free, by the user's own vector."""
    short = np.flatnonzero((found == NONE).any(axis=1))
    if not len(short):
        return found
    taken = hidden[short].copy()
    row, at = np.nonzero(found[short] >= 0)
    taken[row, found[short][row, at]] = True
    scores = np.where(taken, -np.inf, users[short] @ items.T)
    order = best(scores, count=found.shape[1])
    order = np.where(np.isfinite(np.take_along_axis(scores, order, axis=1)), order, NONE)
    held = (found[short] >= 0).sum(axis=1)
    place = np.arange(found.shape[1])
    rest = np.take_along_axis(order, np.maximum(place - held[:, None], 0), axis=1)
    found[short] = np.where(place < held[:, None], found[short], rest)
    return found
