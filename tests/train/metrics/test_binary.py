"""AUC, PR-AUC, log loss and their kin against scikit-learn, and what must hold for any data."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from train.metrics.auc import AUC, PRAUC, PossibleAUC
from train.metrics.calibration import ECE
from train.metrics.gauc import GAUC
from train.metrics.point import MAE, RMSE, Accuracy, Brier, LogLoss, NormalisedEntropy

METRICS = (
    AUC(),
    AUC(name="auc16", bits=16),
    AUC(name="weighted", weight="weight"),
    PRAUC(),
    GAUC(group="user"),
    LogLoss(),
    LogLoss(name="shown_only", where="shown"),
    Brier(),
    Accuracy(),
    RMSE(),
    MAE(),
    NormalisedEntropy(),
    ECE(),
    ECE(name="ece_count", binning="count", bins=4),
    PossibleAUC(truth="truth"),
)


def draw(rng, n, *, levels=50):
    """Scores with ties, labels that follow them."""
    score = rng.integers(0, levels, n).astype(np.float32) / levels
    batch = {
        "click": (rng.random(n) < 0.2 + 0.6 * score).astype(np.float32),
        "weight": rng.random(n).astype(np.float32) + 0.1,
        "user": rng.integers(0, 5, n).astype(np.int32),
        "shown": rng.integers(0, 2, n).astype(np.float32),
        "truth": (0.2 + 0.6 * score).astype(np.float32),
    }
    return {"score": score}, batch


def value(metric, predictions, batch):
    accumulator = metric.make()
    accumulator.update(predictions, batch)
    return accumulator.compute()


def cut(arrays, rows):
    return {name: array[rows] for name, array in arrays.items()}


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_agrees_with_scikit_learn(rng, levels):
    p, b = draw(rng, 3000, levels=levels)
    y, s, w = b["click"], p["score"].astype(np.float64), b["weight"]
    assert value(AUC(), p, b)["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y, s), abs=1e-12)
    weighted = sklearn.metrics.roc_auc_score(y, s, sample_weight=w)
    assert value(AUC(weight="weight"), p, b)["auc"] == pytest.approx(weighted, abs=1e-6)
    assert value(PRAUC(), p, b)["pr_auc"] == pytest.approx(sklearn.metrics.average_precision_score(y, s), abs=1e-12)
    clipped = np.clip(s, 1e-7, 1 - 1e-7)
    assert value(LogLoss(), p, b)["logloss"] == pytest.approx(sklearn.metrics.log_loss(y, clipped), abs=1e-9)
    assert value(Brier(), p, b)["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(y, s), abs=1e-12)
    assert value(Accuracy(), p, b)["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(y, s >= 0.5), abs=1e-12)
    assert value(RMSE(), p, b)["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(y, s), abs=1e-12)
    assert value(MAE(), p, b)["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(y, s), abs=1e-12)


def test_fewer_bits_cost_what_is_documented(rng):
    score = rng.random(20_000, dtype=np.float32)
    b = {"click": (rng.random(20_000) < score).astype(np.float32)}
    exact = value(AUC(), {"score": score}, b)["auc"]
    assert value(AUC(bits=24), {"score": score}, b)["auc"] == pytest.approx(exact, abs=1e-6)
    coarse = AUC(bits=12).make()
    coarse.update({"score": score}, b)
    assert coarse.compute()["auc"] != exact
    assert len(coarse.counts.compact()[0]) < 256  # the bound on memory


def test_gauc_by_hand_and_by_scikit_learn(rng):
    p, b = draw(rng, 400)
    b["click"][b["user"] == 2] = 1.0  # a group of one class
    found = value(GAUC(group="user"), p, b)
    groups = [g for g in range(5) if g != 2]
    auc = [sklearn.metrics.roc_auc_score(b["click"][b["user"] == g], p["score"][b["user"] == g]) for g in groups]
    rows = [(b["user"] == g).sum() for g in groups]
    assert found["gauc"] == pytest.approx(np.average(auc, weights=rows), abs=1e-12)
    assert found["gauc/unweighted"] == pytest.approx(np.mean(auc), abs=1e-12)
    assert found["gauc/groups"] == 4 and found["gauc/excluded_groups"] == 1
    assert found["gauc/excluded_rows"] == (b["user"] == 2).sum()


def test_ece_and_ratio_by_hand():
    p = {"score": np.array([0.1, 0.1, 0.9, 0.9], np.float32)}
    b = {"click": np.array([0, 1, 1, 1], np.float32)}
    for binning in ("width", "count"):
        accumulator = ECE(bins=2, binning=binning).make()
        accumulator.update(p, b)
        assert accumulator.compute()["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.1, abs=1e-7)
        assert accumulator.compute()["ece/ratio"] == pytest.approx(2.0 / 3)
        curve = accumulator.curves()["ece"]
        assert curve["x"] == pytest.approx([0.1, 0.9]) and curve["y"] == [0.5, 1.0] and curve["count"] == [2, 2]


def test_equal_count_bins_hold_equal_counts(rng):
    p = {"score": (rng.random(1000) ** 4).astype(np.float32)}
    accumulator = ECE(bins=10, binning="count").make()
    accumulator.update(p, {"click": np.ones(1000, np.float32)})
    assert accumulator.curves()["ece"]["count"] == [100.0] * 10


def test_normalised_entropy_of_the_base_rate_is_one(rng):
    label = (rng.random(500) < 0.3).astype(np.float32)
    p = {"score": np.full(500, label.mean(dtype=np.float64))}
    assert value(NormalisedEntropy(), p, {"click": label})["ne"] == pytest.approx(1.0, abs=1e-9)


def test_truth_has_all_the_lift_and_its_expectation_is_exact(rng):
    truth = rng.choice([0.1, 0.4, 0.8], 200)
    b = {"click": (rng.random(200) < truth).astype(np.float32), "truth": truth}
    found = value(PossibleAUC(truth="truth"), {"score": truth}, b)
    assert found["auc/lift"] == 1.0
    wins = np.where(truth[:, None] > truth, 1.0, np.where(truth[:, None] == truth, 0.5, 0.0))
    pairs = truth[:, None] * (1 - truth)
    np.fill_diagonal(pairs, 0.0)
    assert found["auc/possible/expected"] == pytest.approx((wins * pairs).sum() / pairs.sum(), abs=1e-12)
    assert found["auc/possible"] == pytest.approx(value(AUC(), {"score": truth}, b)["auc"], abs=1e-12)
    noise = value(PossibleAUC(truth="truth"), {"score": rng.random(200)}, b)
    assert abs(noise["auc/lift"]) < 0.4


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_or_nothing_never_crashes_and_says_why(rng, metric, label):
    p, b = draw(rng, 20)
    b["click"][:] = label
    for rows in (slice(None), slice(0, 0)):
        accumulator = metric.make()
        accumulator.update(cut(p, rows), cut(b, rows))
        found = accumulator.compute()
        missing = {name for name, v in found.items() if np.isnan(v)}
        assert missing == set(accumulator.reasons())
        assert all(accumulator.reasons().values())
        accumulator.curves()
    if isinstance(metric, (AUC, GAUC, NormalisedEntropy)):
        assert missing
    unseen = metric.make()
    assert {n for n, v in unseen.compute().items() if np.isnan(v)} == set(unseen.reasons())


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 80), at=st.integers(0, 80), seed=st.integers(0, 10**6), levels=st.sampled_from([2, 7, 10**5]))
def test_merging_parts_equals_one_pass(n, at, seed, levels):
    p, b = draw(np.random.default_rng(seed), n, levels=levels)
    for metric in METRICS:
        whole, left, right = metric.make(), metric.make(), metric.make()
        whole.update(p, b)
        left.update(cut(p, slice(0, at)), cut(b, slice(0, at)))
        right.update(cut(p, slice(at, None)), cut(b, slice(at, None)))
        before = right.compute()
        left.merge(right)
        assert left.compute() == pytest.approx(whole.compute(), nan_ok=True, abs=1e-9)
        assert right.compute() == pytest.approx(before, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), power=st.sampled_from([3.0, 0.25]), shift=st.integers(-3, 3))
def test_auc_ignores_monotone_transforms_and_gauc_offsets_of_a_group(seed, power, shift):
    p, b = draw(np.random.default_rng(seed), 120, levels=12)
    for metric in (AUC(), PRAUC(), GAUC(group="user")):
        moved = {"score": p["score"].astype(np.float64) ** power + shift}
        assert value(metric, moved, b) == pytest.approx(value(metric, p, b), nan_ok=True, abs=1e-12)
    offset = {"score": p["score"].astype(np.float64) + 16.0 * b["user"]}
    assert value(GAUC(group="user"), offset, b) == pytest.approx(value(GAUC(group="user"), p, b), nan_ok=True)


def test_memory_is_compacted_without_changing_the_value(rng, monkeypatch):
    monkeypatch.setattr("train.metrics.auc.COMPACT", 100)
    p, b = draw(rng, 1000)
    accumulator = AUC().make()
    for start in range(0, 1000, 10):
        accumulator.update(cut(p, slice(start, start + 10)), cut(b, slice(start, start + 10)))
        assert sum(len(part[0]) for part in accumulator.counts._parts) <= 110
    assert accumulator.compute() == value(AUC(), p, b)


def test_curves_end_where_they_must(rng):
    p, b = draw(rng, 5000, levels=10**6)
    for metric, kind in ((AUC(), "roc"), (PRAUC(), "pr")):
        accumulator = metric.make()
        accumulator.update(p, b)
        (curve,) = accumulator.curves().values()
        assert curve["kind"] == kind and len(curve["x"]) == len(curve["y"]) <= 400
        assert curve["x"][-1] == 1.0 and curve["x"] == sorted(curve["x"])
    assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(accumulator.compute()["pr_auc"], abs=0.01)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"score": np.array([0.5, np.nan], np.float32)}, "not finite"),
        ({"click": np.array([0.0, 2.0])}, "labels 0 and 1"),
        ({"score": np.zeros((2, 3))}, "one 'score'"),
    ],
)
def test_bad_input_is_named(change, says):
    arrays = {"score": np.array([0.5, 0.4], np.float32), "click": np.array([0.0, 1.0]), **change}
    with pytest.raises(UserError, match=says):
        value(AUC(), arrays, arrays)


def test_an_unknown_array_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'click'"):
        value(AUC(label="clik"), {"score": np.zeros(1)}, {"click": np.zeros(1)})
