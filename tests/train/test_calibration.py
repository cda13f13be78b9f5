"""Calibration: what is fitted, on which rows, and that the artefact applies exactly that."""

import json

import jax
import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from data.errors import UserError
from data.mall.config import Mall
from data.mall.sources import MallClicks
from data.pipeline import Loader
from data.sampled import KeepNegatives
from modules.ctr.dnn import DNN
from serve.__main__ import main
from serve.artifact import load
from serve.stages import Export
from serve.trained import Trained
from train.calibrate import Calibrate, calibrate, read_calibration
from train.calibration import Isotonic, fit
from train.evaluators import Evaluate
from train.experiment import Experiment
from train.metrics.auc import AUC
from train.metrics.calibration import ECE
from train.optim import Optimizer
from train.pipeline import Pipeline, Train, run_pipeline
from train.tasks.pointwise import Pointwise

MALL = Mall(size="tiny")
VALID = MallClicks(mall=MALL, split="valid", history=4)
TOWER = Experiment(
    model=DNN(dim=4),
    task=Pointwise(),
    source=MallClicks(mall=MALL, history=4),
    loader=Loader(batch_size=64),
    optimizer=Optimizer(lr=1e-2),
    evals={"valid": Evaluate(source=VALID, metrics=(AUC(),))},
    steps=40,
)


def sharp_rows(n=20_000, *, sharpness=3.0, seed=0):
    """Scores that are `sharpness` times too sure, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return (1 / (1 + np.exp(-sharpness * logit))).astype(np.float32), label


def ece(score, label):
    accumulator = ECE(label="y").make()
    accumulator.update({"score": np.asarray(score)}, {"y": label})
    return accumulator.compute()["ece"]


def test_temperature_finds_how_much_too_sure_the_scores_are():
    score, label = sharp_rows()
    fitted = fit("temperature", score=score, label=label)
    assert fitted.temperature == pytest.approx(3.0, rel=0.05)
    other, truth = sharp_rows(seed=1)
    after = np.asarray(fitted.apply(other))
    assert ece(other, truth) > 0.08 and ece(after, truth) < 0.02
    assert np.diff(after[np.argsort(other)]).min() > -1e-6  # the order stays, up to rounding
    assert np.isfinite(np.asarray(fitted.apply(np.array([0.0, 1.0], np.float32)))).all()


def test_isotonic_equals_the_reference_between_and_beyond_its_knots():
    score, label = sharp_rows(3_000)
    score = np.round(score, 2)  # ties
    fitted = fit("isotonic", score=score, label=label)
    asked = np.linspace(0, 1, 501).astype(np.float32)
    expected = IsotonicRegression(out_of_bounds="clip").fit(score, label).predict(asked)
    np.testing.assert_allclose(np.asarray(fitted.apply(asked)), expected, atol=1e-5)
    other, truth = sharp_rows(seed=1)
    assert ece(fitted.apply(other), truth) < 0.03


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_rows_of_one_label_cannot_calibrate(method):
    with pytest.raises(UserError, match="rows of both labels"):
        fit(method, score=np.full(4, 0.5), label=np.ones(4))


def test_knots_that_fall_are_refused():
    with pytest.raises(ValueError, match="must rise"):
        Isotonic(score=(0.1, 0.2), rate=(0.5, 0.4))


def test_the_share_of_negatives_is_corrected_for():
    rng = np.random.default_rng(0)
    truth = np.array([0.02, 0.1, 0.4])
    share = 0.1
    # What a perfect model of the sampled log says of each kind of row.
    sampled = truth / (truth + (1 - truth) * share)
    logit = np.log(sampled / (1 - sampled)).astype(np.float32)
    found = Pointwise(negative_share=share).predict({"logit": logit}, {})["score"]
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    kept = rng.random((200_000, 3)) < truth
    stay = kept | (rng.random(kept.shape) < share)
    np.testing.assert_allclose(kept.sum(0) / stay.sum(0), sampled, rtol=0.05)
    with pytest.raises(ValueError, match="share above 0"):
        Pointwise(negative_share=0.0)


def test_keeping_negatives_keeps_every_positive():
    clicks = MallClicks(mall=Mall(size="tiny"), history=2)
    whole = clicks.make()
    some = KeepNegatives(source=clicks, share=0.25).make()
    label = np.asarray(whole.columns["click"])
    found = some.take(np.arange(len(some)))["click"]
    assert found.sum() == label.sum()
    assert (found == 0).sum() / (label == 0).sum() == pytest.approx(0.25, abs=0.05)
    np.testing.assert_array_equal(some.rows, np.unique(some.rows))
    again = KeepNegatives(source=clicks, share=0.25).make()
    np.testing.assert_array_equal(some.rows, again.rows)
    with pytest.raises(UserError, match="is 0, but it holds"):
        KeepNegatives(source=clicks, share=0.25, label="true_ctr").make()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A tower, its calibration and its export, as a pipeline."""
    out = tmp_path_factory.mktemp("calibrated")
    pipeline = Pipeline(
        stages={
            "tower": Train(experiment=TOWER),
            "calibrated": Calibrate(of="@tower", source=VALID, method="isotonic"),
            "export": Export(of="@tower", calibration="@calibrated/calibration.json", platforms=("cpu",)),
        }
    )
    figures = run_pipeline(pipeline, workdir=out, say=lambda _: None)
    return out, figures


def test_the_artefact_returns_calibrated_scores(ran):
    out, figures = ran
    assert {"before/ece", "after/ece", "before/logloss", "after/logloss"} <= figures["calibrated"].keys()
    trained = Trained(out / "tower")
    rows = VALID.make().take(np.arange(32))
    plain = trained.forward(max_batch=32)(rows)["score"]
    name, fitted = read_calibration(out / "calibrated" / "calibration.json", step=trained.step, workdir=out)
    expected = np.asarray(fitted.apply(jax.numpy.asarray(plain)))
    artifact = load(out / "export")
    assert name == "score"
    np.testing.assert_allclose(artifact.forward(rows)["score"], expected, atol=1e-6)
    assert np.abs(expected - plain).max() > 1e-4
    page = (out / "calibrated" / "calibration.html").read_text()
    assert "Reliability" in page and "before" in page


def test_a_calibration_of_other_weights_is_refused(ran, tmp_path, capsys):
    out, _ = ran
    path = out / "calibrated" / "calibration.json"
    stored = json.loads(path.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**stored, "step": stored["step"] + 1}))
    assert main(["export", str(out / "tower"), "--calibration", str(other), "--output", str(tmp_path)]) == 2
    assert "fitted to step" in capsys.readouterr().err
    assert main(["export", str(out / "tower"), "--calibration", str(tmp_path / "none.json")]) == 2
    assert "python -m serve calibrate" in capsys.readouterr().err


def test_the_command_fits_on_one_half_and_measures_on_the_other(ran, tmp_path, capsys):
    out, _ = ran
    path = tmp_path / "c.json"
    assert main(["calibrate", str(out / "tower"), "--source", "valid", "--output", str(path)]) == 0
    said = capsys.readouterr().out
    assert "ECE" in said and str(path) in said
    stored = json.loads(path.read_text())
    rows = len(VALID.make())
    assert stored["fitted_rows"] + stored["measured_rows"] == rows and 0 < stored["fitted_rows"] < rows
    assert main(["calibrate", str(out / "tower"), "--source", "nowhere"]) == 2
    assert "declares no source 'nowhere'" in capsys.readouterr().err
    with pytest.raises(UserError, match="lacks"):
        calibrate(out / "tower", output=path, source=VALID, score="logit", say=lambda _: None)
