"""The trainer of BARS: the rate falls exactly when the monitor stalls, and the best weights give the best figures."""

import os
import signal

import chz
import jax
import numpy as np
import pytest

from data.errors import UserError
from serve.trained import Trained
from tests.train.tiny import Tiny, tiny
from train import loop
from train.checkpoint import Checkpointing
from train.evaluators import Evaluate, Evaluation, Evaluator
from train.experiment import EarlyStop, Experiment, Plateau, steps_of
from train.judge import Judge
from train.log import read_metrics
from train.metrics.auc import AUC
from train.optim import Optimizer
from train.program import make_predict
from train.rowwise import LazyAdam

pytestmark = pytest.mark.usefixtures("storable_tests")
QUIET = {"say": lambda line: None}
LR = 1e-2


@chz.chz
class Scripted(Evaluator):
    """Gives the figures of a list, one a run, by the number of evaluations in the clock of the test."""

    values: tuple[float, ...] = ()

    def run(self, predict, *, progress=None):
        CALLS.append(1)
        return Evaluation(values={"auc": self.values[len(CALLS) - 1]})


CALLS: list[int] = []


@pytest.fixture(autouse=True)
def fresh():
    CALLS.clear()


def scripted(*values, steps=12, patience=2, **fields) -> Experiment:
    """An evaluation every second step, with these figures."""
    evaluator = Scripted(source=Tiny(split="valid"), metrics=(), every=2, values=values)
    return chz.replace(
        tiny(optimizer=Optimizer(lr=LR), steps=steps),
        evals={"valid": evaluator},
        early_stop=EarlyStop(metric="valid/auc", patience=patience),
        plateau=Plateau(metric="valid/auc", **fields),
    )


def rates(workdir):
    """The learning rate of each step."""
    return {r["step"]: r["values"]["train/lr"] for r in read_metrics(workdir) if "train/lr" in r["values"]}


def test_the_rate_falls_exactly_when_the_monitor_stalls(tmp_path):
    """Better, stalled (by less than min_delta), better, worse, worse: patience 2 ends it at the fifth."""
    experiment = scripted(0.6, 0.6 + 5e-7, 0.7, 0.69, 0.65, 0.9)
    outcome = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert outcome.finished and outcome.step == 10
    expected = {1: LR, 2: LR, 3: LR, 4: LR, **dict.fromkeys((5, 6, 7, 8), LR / 10), 9: LR / 100, 10: LR / 100}
    assert rates(tmp_path / "run") == pytest.approx(expected)
    assert outcome.best.step == 6 and outcome.best.metrics == {"valid/auc": 0.7}
    assert outcome.metrics == {"valid/auc": 0.65}
    assert outcome.results()["valid/auc"] == 0.7 and outcome.results()["best/step"] == 6
    last = read_metrics(tmp_path / "run")[-1]["values"]
    assert last["best/valid/auc"] == 0.7 and last["best/step"] == 6


def test_the_rate_stays_above_its_floor(tmp_path):
    loop.train(scripted(*[0.5] * 6, patience=9, factor=0.1, min_lr=5e-4), workdir=tmp_path / "run", **QUIET)
    assert [rates(tmp_path / "run")[s] for s in (4, 5, 7, 9)] == pytest.approx([LR, LR / 10, 5e-4, 5e-4])


def test_a_metric_that_is_no_number_is_no_better(tmp_path):
    outcome = loop.train(scripted(float("nan"), 0.5, float("nan"), float("nan")), workdir=tmp_path / "run", **QUIET)
    assert outcome.step == 8 and outcome.best.step == 4


def test_a_resumed_run_lowers_the_rate_as_an_undisturbed_one(tmp_path, monkeypatch):
    """Stopped between two stalls and right at one."""
    experiment = chz.replace(
        tiny(optimizer=Optimizer(lr=LR), every=2, steps=12),
        plateau=Plateau(metric="valid/auc", factor=0.5, min_delta=0.2),
    )
    loop.train(experiment, workdir=tmp_path / "whole", **QUIET)
    for after in (4, 1, 2):
        original, done = loop.put_batch, []

        def put(batch, *, mesh, original=original, done=done, after=after):
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(1)
            return original(batch, mesh=mesh)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop, "put_batch", put)
            loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert rates(tmp_path / "run") == rates(tmp_path / "whole")
    assert rates(tmp_path / "run")[12] < LR / 4
    a, b = (loop.Checkpointer(tmp_path / n / "checkpoints") for n in ("whole", "run"))
    program = loop.Program(experiment, features=Tiny().make().features, mesh=experiment.mesh.make())
    one, two = a.restore(program.target()), b.restore(program.target())
    jax.tree.map(np.testing.assert_array_equal, one.state, two.state)
    assert one.clock["plateau"] == two.clock["plateau"] and one.clock["best"] == two.clock["best"]
    a.close(), b.close()


@pytest.mark.parametrize("rows", [False, True], ids=["dense", "rows with decay"])
def test_the_best_weights_reproduce_the_best_figures_to_the_bit(tmp_path, rows):
    """A rate so high that the figures go up and down; `test` is measured once, on the best weights."""
    sparse = {"rows": ("table",), "row_rule": LazyAdam(decay=0.5)} if rows else {}
    test = Evaluate(source=Tiny(split="valid"), metrics=(AUC(label="click"),), batch_size=128)
    base = tiny(optimizer=Optimizer(lr=0.5, **sparse), every=1, steps=8, batch_size=8)
    experiment = chz.replace(
        base,
        evals={**base.evals, "test": test},
        early_stop=EarlyStop(metric="valid/auc", patience=3),
        checkpoint=Checkpointing(every=None, keep_last=1),
    )
    outcome = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert outcome.best.step < outcome.step
    assert outcome.metrics["valid/auc"] < outcome.best.metrics["valid/auc"]
    trained = Trained(tmp_path / "run")
    assert trained.step == outcome.best.step
    weights = {kind: {} for kind in ("params", "stats")}
    for name, value in trained.weights.items():
        kind, _, path = name.partition("/")
        weights[kind][path] = value
    with jax.set_mesh(trained.program.mesh):
        again = experiment.evals["valid"].run(make_predict(trained.program, weights)).values
    assert again["auc"] == outcome.best.metrics["valid/auc"] == outcome.best.metrics["test/auc"]
    before = dict(outcome.best.metrics)
    assert dict(loop.train(experiment, workdir=tmp_path / "run", **QUIET).best.metrics) == before


def test_a_stop_where_an_evaluation_was_due_costs_no_best(tmp_path, monkeypatch):
    """Its checkpoint was saved before it was measured, and is saved again with its figures."""
    experiment = chz.replace(scripted(0.9, 0.5, 0.6, patience=2), checkpoint=Checkpointing(every=None, keep_last=1))
    original, seen = loop.put_batch, []

    def put(batch, *, mesh):
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(batch, mesh=mesh)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "put_batch", put)
        outcome = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert not outcome.finished and outcome.step == 2 and not CALLS
    outcome = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert outcome.finished and outcome.best.step == 2
    assert Trained(tmp_path / "run").step == 2
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == ["2", "6"]


def test_a_stop_at_the_last_step_leaves_the_run_unfinished(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.distributed.StopRequest, "agreed", lambda self, step: step == 2)
    experiment = scripted(0.9, steps=2)
    assert not loop.train(experiment, workdir=tmp_path / "run", **QUIET).finished
    monkeypatch.undo()
    outcome = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert outcome.finished and outcome.metrics == {"valid/auc": 0.9}


def test_best_follows_checkpoint_best_before_what_stops():
    base = tiny()
    stop, plateau = EarlyStop(metric="valid/auc"), Plateau(metric="valid/logloss", mode="min")
    assert base.checkpointing().best is None
    assert chz.replace(base, plateau=plateau).checkpointing().mode == "min"
    assert chz.replace(base, plateau=plateau, early_stop=stop).checkpointing().best == "valid/auc"
    named = chz.replace(base, early_stop=stop, checkpoint=Checkpointing(best="valid/ne", mode="min"))
    assert named.checkpointing().best == "valid/ne"


def test_of_equals_the_later_is_the_best_as_checkpoints_are_ranked():
    clock = {}
    judge = Judge(chz.replace(tiny(), checkpoint=Checkpointing(best="valid/auc")), clock=clock)
    for step, value in ((1, 0.5), (2, 0.7), (3, 0.7), (4, float("nan")), (5, 0.6)):
        judge.take(step, {"valid/auc": value}, last=False)
    assert judge.best == {"step": 3, "metrics": {"valid/auc": 0.7}}


def test_a_plateau_of_a_metric_that_is_not_measured_is_refused(tmp_path):
    experiment = chz.replace(tiny(steps=4), plateau=Plateau(metric="valid/acu"))
    with pytest.raises(UserError, match=r"plateau\.metric is 'valid/acu', but there is valid/auc"):
        loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    with pytest.raises(ValueError, match=r"plateau\.factor is 2"):
        Plateau(metric="valid/auc", factor=2.0)


def test_evaluators_run_once_an_epoch():
    """512 rows in batches of 100: passes end within steps 6, 11, 16 and 21."""
    evaluator = Evaluate(source=Tiny(), metrics=(), every_epochs=1)
    due = [step for step in range(24) if evaluator.due(step, epoch=512 / 100)]
    assert due == [6, 11, 16, 21] and steps_of(epochs=4, rows=512, batch_size=100) == 21
    half = chz.replace(evaluator, every_epochs=0.5)
    assert [s for s in range(9) if half.due(s, epoch=8)] == [4, 8]
    with pytest.raises(ValueError, match="either `every` steps or"):
        Evaluate(source=Tiny(), metrics=(), every_epochs=1, every=5)


def test_a_run_says_how_fast_it_was(tmp_path):
    base = tiny(every=None, batch_size=64)
    experiment = chz.replace(base, evals={"valid": chz.replace(base.evals["valid"], every_epochs=1)})
    outcome = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    evaluated = [r["step"] for r in read_metrics(tmp_path / "run") if "valid/auc" in r["values"]]
    assert evaluated == [8, 12]
    figures = outcome.results()
    assert figures["model/parameters"] == 64 * 4 + 4 + (12 * 8 + 8) + 8 + 1
    assert figures["train/rows_per_second"] * figures["train/seconds_per_epoch"] == pytest.approx(512)
    last = read_metrics(tmp_path / "run")[-1]["values"]
    assert {n: last[n] for n in outcome.speed} == pytest.approx(dict(outcome.speed))
    again = loop.train(experiment, workdir=tmp_path / "run", **QUIET)
    assert again.speed == pytest.approx(dict(outcome.speed))
