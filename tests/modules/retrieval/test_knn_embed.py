"""kNN-Embed: its parts by hand, against a loop over users, and on planted interests."""

import numpy as np
import pytest

from modules.layers.kmeans import spherical_kmeans, unit
from modules.retrieval.knn_embed import NONE, best, nearest, quotas, retrieve, shares, smoothed


def test_shares_and_their_smoothing():
    label = np.array([0, 0, 1, 2])
    p = shares(np.array([[0, 1, 2, NONE], [3, NONE, NONE, NONE], [NONE] * 4]), label=label, clusters=3)
    np.testing.assert_allclose(p, [[2 / 3, 1 / 3, 0], [0, 0, 1], [0, 0, 0]])
    near = np.array([[1], [0], [0]])
    np.testing.assert_allclose(
        smoothed(p, neighbours=near, weight=0.25), [[0.5, 0.25, 0.25], [1 / 6, 1 / 12, 0.75], [2 / 3, 1 / 3, 0]]
    )
    assert smoothed(p, neighbours=near, weight=0.0) is p


def test_quotas_are_rounded_up_and_cut_at_the_likeliest_first():
    p = np.array([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.9, 0.0]])
    plenty = np.full((3, 3), 10)
    given, first = quotas(p, count=4, available=plenty)
    assert given.tolist() == [[2, 2, 0], [2, 2, 0], [0, 4, 0]]
    assert first[0].tolist()[:2] == [0, 2] and first[2, 1] == 0
    assert (np.ceil(4 * p).sum(axis=1) >= 4).all() and (given.sum(axis=1) == 4).all()
    given, first = quotas(p, count=4, available=np.array([[1, 10, 10]] * 3))
    assert given.tolist() == [[1, 2, 1], [1, 2, 1], [0, 4, 0]] and first[0].tolist() == [0, 1, 3]
    ten = np.array([[0.1 * 3, 1 - 0.1 * 3, 0.0]])  # 10 x .30000000000000004 is three, not four
    assert np.ceil(10 * ten[0, 0]) == 4 and quotas(ten, count=10, available=plenty[:1])[0].tolist() == [[3, 7, 0]]


def test_the_best_are_chosen_and_ordered_with_the_lower_among_equals():
    scores = np.array([[1.0, 2.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert best(scores, count=3).tolist() == [[1, 0, 2], [0, 1, 2]]
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert nearest(x, x, count=2, itself=False).tolist() == [[1, 2], [0, 2], [1, 0]]
    assert nearest(x, x, count=2).tolist() == [[0, 1], [0, 1], [2, 1]]


def slowly(users, items, *, own, label, count, smoothing, neighbours):
    """One user and one candidate at a time."""
    clusters = label.max() + 1
    lists = []
    p = np.zeros((len(users), clusters))
    for u, row in enumerate(own):
        mine = [i for i in row if i >= 0]
        for i in mine:
            p[u, label[i]] += 1 / len(mine)
    for u, row in enumerate(own):
        cosine = [
            -np.inf if v == u else users[u] @ users[v] / np.linalg.norm(users[u]) / np.linalg.norm(users[v])
            for v in range(len(users))
        ]
        near = sorted(range(len(users)), key=lambda v: -cosine[v])[:neighbours]
        q = (1 - smoothing) * p[u] + smoothing * np.mean([p[v] for v in near], axis=0)
        chosen = []
        for c in sorted(range(clusters), key=lambda c: -q[c]):
            inside = [items[i] for i in row if i >= 0 and label[i] == c]
            inside = inside or [items[i] for v in near for i in own[v] if i >= 0 and label[i] == c]
            if not inside:
                continue
            centre = np.mean(inside, axis=0)
            open_ = [i for i in range(len(items)) if label[i] == c and i not in row]
            chosen += sorted(open_, key=lambda i: -(centre @ items[i]))[: int(np.ceil(count * q[c] - 1e-9))]
        chosen = chosen[:count]
        rest = [i for i in range(len(items)) if i not in row and i not in chosen]
        chosen += sorted(rest, key=lambda i: -(users[u] @ items[i]))[: count - len(chosen)]
        lists.append(chosen + [NONE] * (count - len(chosen)))
    return np.array(lists)


@pytest.mark.parametrize("smoothing", [0.0, 0.4, 1.0])
def test_lists_are_those_of_the_definition(rng, smoothing):
    items, users = rng.normal(size=(40, 5)), rng.normal(size=(12, 5))
    label, _ = spherical_kmeans(items, clusters=7)
    own = np.stack([rng.choice(40, 6, replace=False) for _ in range(12)])
    own[:, 4:] = np.where(rng.random((12, 2)) < 0.5, NONE, own[:, 4:])
    options = {"own": own, "label": label, "count": 15, "smoothing": smoothing, "neighbours": 3}
    found = retrieve(users, items, **options, seen=own)
    np.testing.assert_array_equal(found, slowly(users, items, **options))
    if not smoothing:
        alone = retrieve(users[:1], items, **{**options, "own": own[:1]}, seen=own[:1])
        np.testing.assert_array_equal(alone, found[:1])  # a mixture asks nobody else


def test_who_has_no_past_has_that_of_the_neighbours_and_a_small_catalogue_ends_the_list(rng):
    items = np.eye(4)
    own = np.array([[0, 1], [NONE, NONE]])
    options = {"own": own, "label": np.array([0, 0, 1, 1]), "smoothing": 0.5, "neighbours": 1}
    found = retrieve(np.array([[1.0, 0, 0, 0], [0.9, 0, 0, 0.1]]), items, **options, count=9, seen=own)
    assert found.shape == (2, 4) and found[0, 2:].tolist() == [NONE, NONE] and set(found[0, :2]) == {2, 3}
    assert found[1, :2].tolist() == [0, 1]


def planted(seed, *, taken=8):
    """60 clusters of 30 items; 40 archetypes, mixtures of three clusters; what users took and what they will take.

    Users of one archetype differ by chance alone. Where each has weights of their own, smoothing takes from what is
    theirs and loses (.72 against .74): it is for users who are alike."""
    rng = np.random.default_rng(seed)
    clusters, per, people, dim = 60, 30, 3000, 32
    centres = unit(rng.normal(size=(clusters, dim)))
    truth = np.repeat(np.arange(clusters), per)
    items = unit(centres[truth] + 0.6 * rng.normal(size=(len(truth), dim)) / np.sqrt(dim))
    archetypes = np.stack([rng.choice(clusters, 3, replace=False) for _ in range(40)])
    kind = rng.integers(0, 40, people)
    weight = rng.dirichlet(np.ones(3), 40)[kind]
    which = (rng.random((people, taken + 10, 1)) > weight.cumsum(1)[:, None, :2]).sum(-1)
    drawn = per * archetypes[kind[:, None], which] + rng.integers(0, per, (people, taken + 10))
    return items, drawn[:, :taken], drawn[:, taken:]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_single_below_mixture_below_smoothed(seed):
    items, own, later = planted(seed)
    users = items[own].mean(axis=1)
    label, _ = spherical_kmeans(items, clusters=60, iterations=10, seed=seed)

    def recall(lists):
        new = ~(later[:, :, None] == own[:, None, :]).any(-1)
        return ((later[:, :, None] == lists[:, None, :]).any(-1) & new).sum() / new.sum()

    def mixed(smoothing):
        return retrieve(users, items, own=own, label=label, count=50, smoothing=smoothing, neighbours=20, seen=own)

    single = users @ items.T
    np.put_along_axis(single, own, -np.inf, axis=1)
    figures = [recall(best(single, count=50)), recall(mixed(0.0)), recall(mixed(0.6))]
    assert figures[0] + 0.01 < figures[1] and figures[1] + 0.005 < figures[2], figures
