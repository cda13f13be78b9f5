"""The expected AUC against the mean over drawn labels, and against every pair written out."""

import numpy as np
import pytest

from data.errors import UserError
from train.metrics.expected import ExpectedAUC


def expected(score, truth, *, parts=1):
    metric = ExpectedAUC(truth="p", score="s")
    total = metric.make()
    for s, p in zip(np.array_split(score, parts), np.array_split(truth, parts), strict=True):
        one = metric.make()
        one.update({"s": s}, {"p": p})
        total.merge(one)
    return total


def test_it_is_the_mean_over_all_pairs_of_rows():
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, 5, 12).astype(np.float32), rng.random(12)
    won = pairs = 0.0
    for i in range(12):
        for j in range(12):
            if i != j:
                weight = truth[i] * (1 - truth[j])
                pairs += weight
                won += weight * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    for parts in (1, 3):
        assert expected(score, truth, parts=parts).compute()["auc/expected"] == pytest.approx(won / pairs)


def test_what_has_no_pairs_says_so_and_odd_values_are_refused():
    found = expected(np.array([0.5], np.float32), np.array([0.3]))
    assert np.isnan(found.compute()["auc/expected"]) and found.reasons().keys() == {"auc/expected"}
    with pytest.raises(UserError, match="leaves"):
        expected(np.array([0.5]), np.array([1.3]))
    with pytest.raises(UserError, match="not finite"):
        expected(np.array([np.nan]), np.array([0.3]))
