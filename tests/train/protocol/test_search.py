"""A search keeps its budget, takes the best trial, and goes on after a stop as if there had been none."""

import json
import shutil

import numpy as np
import pytest

from tests.train.tiny import tiny
from train import loop
from train.log import read_metrics
from train.pipeline import Interrupted
from train.protocol.search import Search
from train.protocol.space import Choices, Range

pytestmark = pytest.mark.usefixtures("storable_tests")

SPACE = {"optimizer.lr": Range(low=1e-4, high=1e-1, log=True), "model.mlp.activation": Choices(values=("relu", "tanh"))}


@pytest.fixture
def trained(monkeypatch):
    """Experiments that were trained, in order; what one finds is a function of its setting."""
    seen = []

    def train(experiment, *, workdir, say):
        seen.append(experiment)
        auc = 0.9 - abs(np.log10(experiment.optimizer.lr) + 2) / 20 - 0.1 * (experiment.model.mlp.activation == "tanh")
        return loop.Outcome(step=8, finished=True, metrics={"valid/auc": auc})

    monkeypatch.setattr(loop, "train", train)
    return seen


def run(out, **fields):
    out.mkdir(exist_ok=True)
    said = []
    stage = Search(experiment=tiny(steps=8), space=SPACE, seed=3, **fields)
    results = stage.run(out=out, say=said.append)
    return results, json.loads((out / "chosen.json").read_text()), said


@pytest.mark.parametrize("trials", [0, 1])
def test_without_a_budget_the_published_setting_is_taken_untried(trials, tmp_path, trained):
    results, chosen, said = run(tmp_path / "a", trials=trials)
    assert trained == []
    assert chosen == {"overrides": {}, "value": None, "trials": 0, "metric": "valid/auc"}
    assert results == {"trials": 0, "chosen": "as published"}
    assert said == ["chosen: as published"]


def test_the_best_trial_is_chosen_and_the_published_setting_is_the_first(tmp_path, trained):
    results, chosen, said = run(tmp_path / "a", trials=4)
    assert len(trained) == 4
    assert trained[0] == tiny(steps=8)
    records = [json.loads((tmp_path / f"a/trials/{n}.json").read_text()) for n in range(4)]
    assert records[0]["overrides"] == {}
    for experiment, record in zip(trained[1:], records[1:], strict=True):
        assert experiment.optimizer.lr == record["overrides"]["optimizer.lr"]
        assert experiment.model.mlp.activation == record["overrides"]["model.mlp.activation"]
    best = max(records, key=lambda r: r["value"])
    assert chosen["overrides"] == best["overrides"]
    assert results["valid/auc"] == chosen["value"] == max(r["figures"]["valid/auc"] for r in records)
    assert [line.split(":")[0] for line in said if line.startswith("trial")] == [f"trial {n}/4" for n in (1, 2, 3, 4)]
    worst = Search(experiment=tiny(steps=8), space=SPACE, seed=3, trials=4, mode="min")
    worst.run(out=tmp_path / "a", say=lambda line: None)
    assert len(trained) == 4
    assert json.loads((tmp_path / "a/chosen.json").read_text())["value"] == min(r["value"] for r in records)


def test_a_stopped_search_goes_on_with_the_same_trials(tmp_path, trained):
    run(tmp_path / "whole", trials=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for n in (2, 3):
        (tmp_path / f"half/trials/{n}.json").unlink()
    trained.clear()
    run(tmp_path / "half", trials=4)
    assert len(trained) == 2
    for n in range(4):
        whole, half = (json.loads((tmp_path / f / f"trials/{n}.json").read_text()) for f in ("whole", "half"))
        assert whole["overrides"] == half["overrides"]
        assert whole["value"] == half["value"]


def test_a_larger_budget_keeps_the_trials_that_are_there(tmp_path, trained):
    run(tmp_path / "a", trials=2)
    run(tmp_path / "a", trials=3)
    assert len(trained) == 3


def test_the_sampler_learns_from_the_trials_and_their_direction(tmp_path, trained):
    """The first draws are random and equal; later ones go to where the figures were better, or where lower."""
    drawn = {}
    for mode in ("max", "min"):
        run(tmp_path / mode, trials=12, mode=mode)
        records = [json.loads((tmp_path / f"{mode}/trials/{n}.json").read_text()) for n in range(12)]
        drawn[mode] = [r["overrides"].get("optimizer.lr") for r in records]
    assert drawn["max"][:6] == drawn["min"][:6]
    assert drawn["max"][6:] != drawn["min"][6:]


def test_a_setting_that_comes_again_is_not_trained_again(tmp_path, trained):
    space = {"model.mlp.activation": Choices(values=("tanh",))}
    (tmp_path / "a").mkdir()
    Search(experiment=tiny(steps=8), space=space, trials=4).run(out=tmp_path / "a", say=lambda line: None)
    assert len(trained) == 2
    assert json.loads((tmp_path / "a/trials/3.json").read_text())["same_as"] == 1


def test_a_trial_is_a_training_run(tmp_path):
    """Not a stand-in for one: what the loop measures is what counts."""
    run(tmp_path / "a", trials=2)
    record = json.loads((tmp_path / "a/trials/1.json").read_text())
    logged = [r["values"]["valid/auc"] for r in read_metrics(tmp_path / "a/trials/1") if "valid/auc" in r["values"]]
    assert record["value"] == logged[-1]
    assert not (tmp_path / "a/trials/1/checkpoints").exists()


def test_a_stop_in_a_trial_leaves_the_search_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda *_, **__: loop.Outcome(step=3, finished=False, stopped=True))
    with pytest.raises(Interrupted, match="stopped in trial 1 of 2"):
        run(tmp_path / "a", trials=2)
    assert not (tmp_path / "a/trials/0.json").exists()


def test_trials_need_a_space():
    with pytest.raises(ValueError, match="2 trials, but no space"):
        Search(experiment=tiny(), trials=2)
