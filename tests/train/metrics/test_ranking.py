"""Ranks and ranking metrics against rax, against a brute force, and under ties."""

import jax.numpy as jnp
import numpy as np
import pytest
import rax
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from train.metrics.ranking import MRR, NDCG, Coverage, Gini, HitRate, MedianRank, Recall
from train.metrics.ranks import Ranked, allow, padded, rank_targets, top_k

METRICS = (HitRate(ks=(1, 5)), Recall(ks=(1, 5)), NDCG(ks=(1, 5)), MRR(ks=(5,)), MedianRank())
SHOWN = (Coverage(ks=(2, 4)), Gini(ks=(2, 4)))


def ranked(scores, targets, *, k=5, forbidden=None) -> Ranked:
    return rank_targets(scores, targets=targets, allowed=allow(scores.shape, forbidden=forbidden), k=k)


def measure(metric, found: Ranked, *, catalogue=0):
    accumulator = metric.make()
    accumulator.update({"rank": found.rank, "top": found.top, "catalogue": np.asarray(catalogue)}, {})
    return accumulator.compute()


def draw(rng, *, b=40, v=30, m=4, levels=None):
    scores = rng.permuted(np.tile(np.arange(v, dtype=np.float32), (b, 1)), axis=1)
    scores = scores if levels is None else scores % levels
    targets = np.stack([rng.choice(v, m, replace=False) for _ in range(b)])
    return scores, np.where(np.arange(m) < rng.integers(1, m + 1, (b, 1)), targets, -1)


def test_agrees_with_rax(rng):
    scores, targets = draw(rng)
    labels = np.zeros(scores.shape, np.float32)
    for row, ids in enumerate(targets):
        labels[row, ids[ids >= 0]] = 1.0
    s, y = jnp.asarray(scores), jnp.asarray(labels)
    found = ranked(scores, targets)
    for k in (1, 3, 10):
        ndcg = float(rax.ndcg_metric(s, y, topn=k, gain_fn=lambda x: x))
        assert measure(NDCG(ks=(k,)), found)[f"ndcg@{k}"] == pytest.approx(ndcg, abs=1e-6)
        assert measure(Recall(ks=(k,)), found)[f"recall@{k}"] == pytest.approx(
            float(rax.recall_metric(s, y, topn=k)), abs=1e-6
        )
        mrr = float(rax.mrr_metric(s, y, topn=k))
        assert measure(MRR(ks=(k,)), found)[f"mrr@{k}"] == pytest.approx(mrr, abs=1e-6)
    assert measure(MRR(), found)["mrr"] == pytest.approx(float(rax.mrr_metric(s, y)), abs=1e-6)


def brute(scores, targets, allowed):
    """Rank of each target by counting, one comparison at a time."""
    out = np.zeros(targets.shape, int)
    for i, row in enumerate(targets):
        mine = [t for t in row if t >= 0]
        for j, target in enumerate(row):
            if target < 0:
                continue
            others = [v for v in range(scores.shape[1]) if allowed[i, v] and v not in mine]
            out[i, j] = 1 + sum(scores[i, v] >= scores[i, target] for v in others)
            out[i, j] += sum(scores[i, t] > scores[i, target] for t in mine)
            out[i, j] += sum(scores[i, t] == scores[i, target] for t in row[:j] if t >= 0)
    return out


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([None, 1, 3]))
def test_ranks_equal_a_brute_force(seed, levels):
    rng = np.random.default_rng(seed)
    scores, targets = draw(rng, b=5, v=12, m=3, levels=levels)
    forbidden = rng.integers(-1, 12, (5, 4))
    allowed = allow(scores.shape, forbidden=forbidden)
    found = rank_targets(scores, targets=targets, allowed=allowed, k=12)
    np.testing.assert_array_equal(found.rank, brute(scores, targets, allowed))
    assert ((found.rank > 0) == (targets >= 0)).all()
    for row in range(5):
        shown = found.top[row][found.top[row] >= 0]
        assert set(shown) == set(np.flatnonzero(allowed[row])) | set(targets[row][targets[row] >= 0])
        assert (np.diff(scores[row, shown]) <= 0).all()


def test_equal_scores_count_against_the_target():
    found = ranked(np.zeros((1, 10), np.float32), np.array([[3]]))
    assert found.rank.tolist() == [[10]] and found.ties.tolist() == [[9]]
    assert measure(HitRate(ks=(9, 10)), found) == {"hit_rate@9": 0.0, "hit_rate@10": 1.0}


def test_minus_infinity_does_not_lift_a_target():
    scores = np.array([[-np.inf, -np.inf, 1.0]], np.float32)
    assert ranked(scores, np.array([[0]])).rank.tolist() == [[3]]


def test_a_target_listed_twice_counts_once():
    scores = np.array([[3.0, 2.0, 1.0]])
    assert ranked(scores, np.array([[1, 1, 2]])).rank.tolist() == [[2, 0, 3]]


def test_a_forbidden_target_stays_a_candidate_and_nothing_else_forbidden_does():
    scores = np.array([[9.0, 8.0, 7.0, 1.0]])
    found = ranked(scores, np.array([[2]]), forbidden=np.array([[0, 2, -1]]), k=4)
    assert found.rank.tolist() == [[2]]
    assert found.top.tolist() == [[1, 2, 3, -1]]


def test_top_k_takes_the_lower_id_among_equals():
    scores = np.array([[1.0, 2.0, 2.0, 0.0]])
    assert top_k(scores, allowed=np.ones((1, 4), bool), k=4).tolist() == [[1, 2, 0, 3]]


def test_nan_scores_and_targets_out_of_range_are_named():
    with pytest.raises(UserError, match="NaN"):
        ranked(np.array([[np.nan, 1.0]]), np.array([[1]]))
    with pytest.raises(UserError, match="outside"):
        ranked(np.array([[0.0, 1.0]]), np.array([[2]]))


def test_padded_reads_one_id_or_a_list_with_its_length():
    assert padded({"t": np.array([4, 5])}, "t").tolist() == [[4], [5]]
    assert padded({"t": np.array([[4, 0]]), "t/length": np.array([1])}, "t").tolist() == [[4, -1]]


def test_values_by_hand():
    found = Ranked(rank=np.array([[1, 3], [7, 0], [0, 0]]), ties=np.zeros((3, 2), int), top=np.zeros((3, 0), int))
    assert measure(Recall(ks=(1, 5)), found) == {"recall@1": 0.25, "recall@5": 0.5}  # a row without target is no row
    assert measure(HitRate(ks=(5,)), found) == {"hit_rate@5": 0.5}
    assert measure(MRR(ks=(5,)), found) == {"mrr": pytest.approx((1 + 1 / 7) / 2), "mrr@5": 0.5}
    assert measure(MedianRank(), found) == {"median_rank": 4.0}
    assert measure(NDCG(ks=(5,)), found)["ndcg@5"] == pytest.approx((1 + 0.5) / (1 + 1 / np.log2(3)) / 2)


def test_coverage_and_gini_at_their_limits():
    same = Ranked(rank=np.ones((10, 1)), ties=np.zeros((10, 1)), top=np.tile([2, 3], (10, 1)))
    assert measure(Coverage(ks=(2,)), same, catalogue=20) == {"coverage@2": 0.1}
    assert measure(Gini(ks=(2,)), same, catalogue=20) == {"gini@2": pytest.approx(1 - 2 / 20)}
    even = Ranked(rank=np.ones((10, 1)), ties=np.zeros((10, 1)), top=np.arange(20).reshape(10, 2))
    assert measure(Gini(ks=(2,)), even, catalogue=20) == {"gini@2": pytest.approx(0.0, abs=1e-12)}
    with pytest.raises(UserError, match="needs as many results"):
        measure(Coverage(ks=(3,)), even, catalogue=20)


def test_gini_equals_the_mean_difference(rng):
    top = rng.integers(0, 9, (50, 3))
    found = Ranked(rank=np.ones((50, 1)), ties=np.zeros((50, 1)), top=top)
    counts = np.bincount(top.ravel(), minlength=12)  # three items are never shown
    want = np.abs(counts[:, None] - counts).sum() / (2 * 12 * counts.sum())
    assert measure(Gini(ks=(3,)), found, catalogue=12)["gini@3"] == pytest.approx(want, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(at=st.integers(0, 12), seed=st.integers(0, 10**6))
def test_merging_parts_equals_one_pass(at, seed):
    scores, targets = draw(np.random.default_rng(seed), b=12, v=9, m=2)
    for metric in (*METRICS, *SHOWN):
        parts = []
        for rows in (slice(None), slice(0, at), slice(at, None)):
            accumulator = metric.make()
            if len(scores[rows]):
                found = ranked(scores[rows], targets[rows])
                accumulator.update({"rank": found.rank, "top": found.top, "catalogue": np.asarray(9)}, {})
            parts.append(accumulator)
        whole, left, right = parts
        left.merge(right)
        assert left.compute() == pytest.approx(whole.compute(), abs=1e-12)


@pytest.mark.parametrize("metric", [*METRICS, *SHOWN], ids=lambda m: m.name)
def test_nothing_seen_is_nan_with_a_reason(metric):
    accumulator = metric.make()
    found = accumulator.compute()
    assert all(np.isnan(v) for v in found.values()) and set(accumulator.reasons()) == set(found)
    accumulator.curves()


def test_a_history_of_another_catalogue_is_refused():
    with pytest.raises(UserError, match="item 7 is outside the 5 scores of a row: model and evaluator"):
        allow((2, 5), forbidden=np.array([[1, -1], [7, 2]]))
