"""The loop: resumes to the bit, stops on request and on NaN, refuses another config, forks, starts from weights."""

import json
import os
import signal

import chz
import jax
import numpy as np
import pytest

from data.errors import UserError
from tests.train.tiny import Tiny, tiny
from train import loop
from train.checkpoint import Checkpointing, load_weights
from train.experiment import EarlyStop, load_experiment
from train.init_from import InitFrom
from train.log import NotFinite, read_metrics
from train.optim import Optimizer
from train.sharding import Mesh

QUIET = {"say": lambda line: None}

pytestmark = pytest.mark.usefixtures("storable_tests")


def weights(workdir):
    return load_weights(workdir / "checkpoints", step="latest")


def assert_equal_to_the_bit(a, b):
    for part in ("params", "stats", "ema"):
        assert a[part].keys() == b[part].keys()
        for name in a[part]:
            np.testing.assert_array_equal(a[part][name], b[part][name], err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, storable_tests):
    """An undisturbed run of 12 steps."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    outcome = loop.train(tiny(), workdir=workdir, **QUIET)
    return workdir, outcome


class Power(Exception):
    """Stands for the machine going down."""


def crash_after(monkeypatch, step):
    """The train step fails once `step` updates are done in this process."""
    original, done = loop.put_batch, []

    def put(batch, *, mesh):
        if len(done) == step:
            raise Power
        done.append(1)
        return original(batch, mesh=mesh)

    monkeypatch.setattr(loop, "put_batch", put)


def test_a_finished_run_has_all_it_promises(whole):
    workdir, outcome = whole
    assert outcome.finished and outcome.step == 12
    assert outcome.metrics["valid/auc"] > 0.6
    assert load_experiment(workdir) == tiny()
    train = [r for r in read_metrics(workdir) if "train/loss" in r["values"]]
    assert [r["step"] for r in train] == list(range(1, 13))
    evals = [r["step"] for r in read_metrics(workdir) if "valid/auc" in r["values"]]
    assert evals == [4, 8, 12]


def test_interrupted_runs_end_in_the_same_bits(whole, tmp_path, monkeypatch):
    for after in (1, 3, 3):
        with monkeypatch.context() as patch, pytest.raises(Power):
            crash_after(patch, after)
            loop.train(tiny(), workdir=tmp_path / "run", **QUIET)
    said = []
    outcome = loop.train(tiny(), workdir=tmp_path / "run", say=said.append)
    assert outcome.finished
    assert any(line.startswith("resumed at step ") for line in said)
    assert_equal_to_the_bit(weights(tmp_path / "run"), weights(whole[0]))


def test_resuming_a_finished_run_changes_nothing(whole):
    before = weights(whole[0])
    outcome = loop.train(tiny(), workdir=whole[0], **QUIET)
    assert outcome.finished and outcome.metrics == pytest.approx(whole[1].metrics)
    assert_equal_to_the_bit(weights(whole[0]), before)


def test_sigterm_saves_and_the_same_command_goes_on(whole, tmp_path, monkeypatch):
    original, seen = loop.put_batch, []

    def put(batch, *, mesh):
        seen.append(1)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(batch, mesh=mesh)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "put_batch", put)
        outcome = loop.train(tiny(), workdir=tmp_path / "run", **QUIET)
    assert not outcome.finished and outcome.step == 5
    assert (tmp_path / "run" / "checkpoints" / "5").is_dir()
    assert loop.train(tiny(), workdir=tmp_path / "run", **QUIET).finished
    assert_equal_to_the_bit(weights(tmp_path / "run"), weights(whole[0]))


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path):
    experiment = tiny(source=Tiny(broken_at=3), optimizer=Optimizer(lr=1e-2))
    with pytest.raises(NotFinite, match="loss is nan at step") as caught:
        loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    # A bad row spoils the step after its own at the latest: its update makes the next loss NaN.
    batches = experiment.loader.open(experiment.source.make())
    bad = next(i for i in range(1, 13) if not np.isfinite(next(batches)["price"]).all())
    assert caught.value.step in (bad, bad + 1)
    kept = weights(tmp_path / "run") if list((tmp_path / "run/checkpoints").glob("[0-9]*")) else {"params": {}}
    assert all(np.isfinite(p).all() for p in kept["params"].values())


def test_another_config_is_refused_with_the_difference(whole):
    with pytest.raises(UserError, match=r"optimizer\.lr: 0\.01 -> 0\.02"):
        loop.train(tiny(optimizer=Optimizer(lr=0.02)), workdir=whole[0], **QUIET)


def test_more_steps_go_on_where_the_run_ended(tmp_path):
    loop.train(tiny(steps=4), workdir=tmp_path / "run", **QUIET)
    outcome = loop.train(tiny(steps=6), workdir=tmp_path / "run", **QUIET)
    assert outcome.step == 6


def test_early_stop_ends_the_run_and_stays_ended(tmp_path):
    experiment = chz.replace(
        tiny(optimizer=Optimizer(lr=1e-9), every=2, steps=40),
        early_stop=EarlyStop(metric="valid/auc", patience=2, min_delta=0.1),
    )
    first = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert first.finished and first.step == 6
    again = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert again.finished and again.step == 6


def test_early_stop_on_an_unknown_metric_is_refused(tmp_path):
    experiment = chz.replace(tiny(), early_stop=EarlyStop(metric="valid/acu"))
    with pytest.raises(UserError, match=r"valid/acu.*valid/auc"):
        loop.train(experiment, workdir=tmp_path / "run", **QUIET)


def test_weights_of_another_run_are_where_training_starts(whole, tmp_path):
    experiment = chz.replace(tiny(steps=1), init_from=InitFrom(workdir=str(whole[0]), step="latest"))
    said = []
    frozen = chz.replace(experiment, optimizer=Optimizer(lr=0.0))
    loop.train(frozen, workdir=tmp_path / "run", say=said.append)
    assert_equal_to_the_bit(weights(tmp_path / "run"), weights(whole[0]))
    assert any("loaded" in line for line in said)


def test_keep_best_and_the_metric_it_goes_by(tmp_path):
    experiment = chz.replace(
        tiny(every=2), checkpoint=Checkpointing(every=None, keep_last=1, keep_best=1, best="valid/auc", mode="min")
    )
    loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    values = {r["step"]: r["values"]["valid/auc"] for r in read_metrics(tmp_path / "run") if "valid/auc" in r["values"]}
    kept = sorted(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit())
    assert kept == sorted({12, min(values, key=lambda s: (values[s], -s))})


def test_a_second_process_is_kept_out(whole):
    with loop.Workdir(whole[0]), pytest.raises(UserError, match="in use by pid"):
        loop.train(tiny(), workdir=whole[0], **QUIET)


def test_checkpoints_do_not_depend_on_devices(whole, tmp_path):
    """Trained to step 4 on four devices, gone on with on another mesh."""
    loop.train(tiny(steps=4), workdir=tmp_path / "run", **QUIET)
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["mesh"]["model"], config["mesh"]["data"] = 2, 2
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    other = chz.replace(tiny(), mesh=Mesh(data=2, model=2))
    outcome = loop.train(other, workdir=tmp_path / "run", **QUIET)
    assert outcome.finished
    for name, value in weights(whole[0])["params"].items():
        np.testing.assert_allclose(weights(tmp_path / "run")["params"][name], value, rtol=1e-4, atol=1e-5)
    assert jax.device_count() == 4
