"""Figures of a model over seeds: those of its best evaluation, their mean and spread, and what the seeds cost."""

import json

import chz
import numpy as np
import pytest

from tests.train.tiny import ROWS, tiny
from train import loop
from train.experiment import EarlyStop
from train.log import read_metrics
from train.pipeline import Interrupted
from train.protocol.repeat import Repeat, summary

pytestmark = pytest.mark.usefixtures("storable_tests")


def run(out, **fields):
    out.mkdir(exist_ok=True)
    said = []
    experiment = chz.replace(tiny(steps=8), early_stop=EarlyStop(metric="valid/auc", patience=9))
    results = Repeat(experiment=experiment, **fields).run(out=out, say=said.append)
    return results, json.loads((out / "results.json").read_text()), said


def test_mean_and_spread_over_seeds(tmp_path):
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps({"overrides": {"model.mlp.widths": [4]}, "trials": 5}))
    results, stored, said = run(tmp_path / "a", seeds=(0, 1), chosen=str(chosen))
    a, b = stored["runs"]
    assert (a["seed"], b["seed"]) == (0, 1)
    assert a["valid/auc"] != b["valid/auc"]
    for n, r in ((0, a), (1, b)):
        config = json.loads((tmp_path / f"a/seed-{n}/config.json").read_text())
        assert (config["seed"], config["loader"]["seed"], config["model"]["mlp"]["widths"]) == (n, n, [4])
        measured = [m for m in read_metrics(tmp_path / f"a/seed-{n}") if "valid/auc" in m["values"]]
        assert r["valid/auc"] == max(m["values"]["valid/auc"] for m in measured)
        assert r["train/epochs"] == pytest.approx(8 * 64 / ROWS)
        assert r["train/seconds_per_epoch"] == pytest.approx(ROWS / r["train/rows_per_second"])
    # 40 + 24 rows of width 4, a field vector for the price, 12 -> 4 -> 1
    assert stored["mean"]["model/parameters"] == 64 * 4 + 4 + (12 * 4 + 4) + (4 + 1)
    values = [r["valid/auc"] for r in stored["runs"]]
    assert stored["mean"]["valid/auc"] == results["valid/auc"] == pytest.approx(np.mean(values))
    assert stored["sd"]["valid/auc"] == results["valid/auc/sd"] == pytest.approx(np.std(values, ddof=1))
    assert (stored["model"], stored["overrides"], stored["trials"]) == ("DNN", {"model.mlp.widths": [4]}, 5)
    assert "DNN, model.mlp.widths=4, 5 trials" in said


def test_seeds_that_are_done_are_not_trained_again(tmp_path, monkeypatch):
    seen = []

    def train(experiment, *, workdir, say):
        seen.append(experiment.seed)
        figures = {"valid/auc": 0.7 + 0.1 * experiment.seed, "train/seconds_per_epoch": 2.0}
        return loop.Outcome(step=8, finished=True, metrics=figures)

    monkeypatch.setattr(loop, "train", train)
    _, first, _ = run(tmp_path / "a", seeds=(0,))
    _, second, _ = run(tmp_path / "a", seeds=(0, 1))
    assert seen == [0, 1]
    assert second["runs"][0] == first["runs"][0]


def test_a_stop_in_a_seed_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda *_, **__: loop.Outcome(step=3, finished=False, stopped=True))
    with pytest.raises(Interrupted, match="stopped at step 3 of 8, seed 7"):
        run(tmp_path / "a", seeds=(7,))
    assert not (tmp_path / "a/results.json").exists()


def test_a_metric_of_no_evaluator_is_refused():
    with pytest.raises(ValueError, match="is of no evaluator: valid"):
        Repeat(experiment=tiny(), metric="test/auc")


def test_one_seed_has_no_spread():
    assert summary([{"seed": 3, "x": 2.0}]) == {"mean": {"x": 2.0}, "sd": {"x": 0.0}}
