import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.decide.slate import Limit, by_groups, by_vectors, choose, spread

quick = settings(max_examples=150, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def oracle(relevance, similarity, *, k, weight, limits):
    """Maximal marginal relevance with limits, one candidate against one chosen at a time."""
    chosen = []
    while len(chosen) < k:
        best, best_value = None, None
        for i in range(len(relevance)):
            full = any(
                g[i] >= 0 and seen.get(g[i], 0) + sum(g[c] == g[i] for c in chosen) >= most for g, most, seen in limits
            )
            if i in chosen or full:
                continue
            value = relevance[i]
            if chosen:
                value = weight * relevance[i] - (1 - weight) * max(similarity[i][c] for c in chosen)
            if best is None or value > best_value:
                best, best_value = i, value
        if best is None:
            break
        chosen.append(best)
    return chosen


@quick
@given(SEEDS)
def test_the_page_is_that_of_the_rule(seed):
    rng = np.random.default_rng(seed)
    n, k, weight = rng.integers(1, 12), int(rng.integers(1, 14)), float(rng.random())
    relevance = np.round(rng.random(n), 1)  # with ties
    vectors = rng.normal(size=(n, 2))
    groups = [rng.integers(-1, 3, n) for _ in range(2)]
    seen = {0: int(rng.integers(0, 3))}
    limits = [Limit("a", groups[0], int(rng.integers(0, 4))), Limit("b", groups[1], int(rng.integers(1, 4)), seen)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = oracle(
        relevance, unit @ unit.T, k=k, weight=weight, limits=[(m.group, m.most, dict(m.seen)) for m in limits]
    )
    got = choose(relevance, k=k, similarity=by_vectors(vectors), weight=weight, limits=limits)
    assert got.chosen.tolist() == wanted


@quick
@given(SEEDS)
def test_caps_are_never_exceeded_and_say_whom_they_kept_out(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 40)
    group, most, seen = rng.integers(-1, 5, n), int(rng.integers(0, 4)), {g: int(rng.integers(0, 3)) for g in range(5)}
    slate = choose(rng.random(n), k=int(rng.integers(1, 50)), limits=[Limit("cap", group, most, seen)])
    for g in range(5):
        here = (group[slate.chosen] == g).sum()
        assert here == 0 or here + seen[g] <= most
    assert not set(np.flatnonzero(slate.blocked == "cap")) & set(slate.chosen)
    assert (group[slate.blocked == "cap"] >= 0).all()


@pytest.mark.parametrize("similarity", [None, by_groups(np.zeros(30, int))])
def test_with_weight_one_it_is_plain_ranking(rng, similarity):
    relevance = np.round(rng.random(30), 1)
    got = choose(relevance, k=30, similarity=similarity, weight=1.0).chosen
    np.testing.assert_array_equal(got, np.argsort(-relevance, kind="stable"))


def test_groups_alternate_where_diversity_is_all(rng):
    group = np.array([0, 0, 0, 1, 1, -1])
    got = choose(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1]), k=4, similarity=by_groups(group), weight=0.1).chosen
    assert got.tolist() == [0, 3, 5, 1]


def test_an_item_without_a_vector_is_like_nothing():
    similarity = by_vectors(np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]))
    assert similarity(0).tolist() == [1.0, 0.0, 1.0]
    assert similarity(1).tolist() == [0.0, 0.0, 0.0]


def test_spread_covers_zero_to_one_and_a_constant_says_nothing():
    assert spread(np.array([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert spread(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert spread(np.zeros(0)).tolist() == []
