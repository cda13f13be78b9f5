"""Metrics of lists against loops, and what counts as no value."""

import numpy as np
import pytest

from data.errors import UserError
from train.metrics.lists import Diversity, ExactRecall, InterestCoverage


def measure(metric, **predictions):
    accumulator = metric.make()
    whole = {"catalogue": np.asarray(30), **{n.replace("__", "/"): v for n, v in predictions.items()}}
    accumulator.update(whole, {})
    return accumulator.compute(), accumulator


@pytest.fixture
def lists(rng):
    top = np.stack([rng.choice(30, 8, replace=False) for _ in range(20)])
    return np.where(np.arange(8) < rng.integers(0, 9, (20, 1)), top, -1)


def test_recall_of_the_exact_list(lists, rng):
    exact = np.stack([rng.choice(30, 8, replace=False) for _ in range(20)])
    exact[3] = -1
    exact[5, 2:] = -1  # a small catalogue: two are all there is
    found, _ = measure(ExactRecall(ks=(3, 8)), top=lists, exact=exact)
    for k in (3, 8):
        both = list(zip(lists[:, :k].tolist(), exact[:, :k].tolist(), strict=True))
        rows = [len((set(a) & set(b)) - {-1}) / len(set(b) - {-1}) for a, b in both if max(b) >= 0]
        assert found[f"exact_recall@{k}"] == pytest.approx(np.mean(rows))
    lists[5] = -1
    assert measure(ExactRecall(ks=(8,)), top=lists[5:6], exact=exact[5:6])[0] == {"exact_recall@8": 0.0}
    assert measure(ExactRecall(ks=(8,)), top=exact, exact=exact)[0] == {"exact_recall@8": 1.0}


def test_diversity_is_of_pairs(lists, rng):
    vectors = rng.normal(size=(20, 8, 5))
    vectors[:, 2] = 0  # an item without a vector is in no pair
    found, _ = measure(Diversity(ks=(4, 8)), top=lists, top__vectors=vectors)
    for k in (4, 8):
        rows = []
        for ids, x in zip(lists[:, :k], vectors[:, :k], strict=True):
            there = [v / np.linalg.norm(v) for i, v in zip(ids, x, strict=True) if i >= 0 and v.any()]
            pairs = [1 - a @ b for i, a in enumerate(there) for b in there[:i]]
            rows += [np.mean(pairs)] if pairs else []
        assert found[f"diversity@{k}"] == pytest.approx(np.mean(rows))


def test_interests_that_a_list_meets(rng, lists):
    groups = rng.integers(0, 5, 30)
    targets = np.where(rng.random((20, 4)) < 0.6, rng.integers(0, 30, (20, 4)), -1)
    of = {n: np.where(a >= 0, groups[a], -1) for n, a in {"top__groups": lists, "target__groups": targets}.items()}
    found, whole = measure(InterestCoverage(ks=(2, 8)), **of)
    for k in (2, 8):
        rows = []
        for shown, wanted in zip(lists[:, :k].tolist(), targets.tolist(), strict=True):
            interests = {groups[i] for i in wanted if i >= 0}
            met = interests & {groups[i] for i in shown if i >= 0}
            rows += [len(met) / len(interests)] if interests else []
        assert found[f"interest_coverage@{k}"] == pytest.approx(np.mean(rows))
    halves = [
        measure(InterestCoverage(ks=(2, 8)), **{n: a[rows] for n, a in of.items()})[1]
        for rows in (slice(0, 7), slice(7, 20))
    ]
    halves[0].merge(halves[1])
    assert halves[0].compute() == pytest.approx(whole.compute())


def test_no_value_has_a_reason_and_a_short_list_is_named():
    nothing = np.full((2, 3), -1)
    found, accumulator = measure(InterestCoverage(ks=(3,)), top__groups=nothing, target__groups=nothing)
    assert np.isnan(found["interest_coverage@3"])
    assert accumulator.reasons() == {"interest_coverage@3": "no target has a group"}
    with pytest.raises(UserError, match="the first 5, but the lists of 'top' hold 3"):
        measure(ExactRecall(ks=(5,)), top=nothing, exact=nothing)
    with pytest.raises(UserError, match="top/vectors"):
        measure(Diversity(ks=(3,)), top=nothing)
