"""The log: what is written, what a resumption supersedes, when a loss that is not finite stops the run."""

import io
import json

import jax.numpy as jnp
import pytest
from rich.console import Console

from data.errors import UserError
from train.log import AHEAD, Logger, Logging, NotFinite, read_metrics
from train.progress import Bar, clock, figures, short


def logger(workdir, *, start=0, steps=30, **fields):
    return Logger(
        workdir, config=Logging(**{"every": 10, "progress": "none", **fields}), steps=steps, batch_size=4, start=start
    )


def feed(log, steps, *, bad=None):
    for step in steps:
        log.train(
            step, {"loss": jnp.float32(jnp.nan if step == bad else step), "norm": jnp.float32(2 * step)}, waited=0.0
        )


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_loss_is_the_mean_of_its_interval_and_comes_one_interval_late(tmp_path):
    log = logger(tmp_path)
    feed(log, range(1, 20))
    assert lines(tmp_path) == []
    feed(log, [20])
    assert [r["step"] for r in lines(tmp_path)] == [10]
    feed(log, range(21, 31))
    log.flush()
    log.close()
    assert [r["step"] for r in lines(tmp_path)] == [10, 20, 30]
    assert [r["values"]["train/loss"] for r in lines(tmp_path)] == [5.5, 15.5, 25.5]
    assert lines(tmp_path)[-1]["values"]["train/norm"] == 60.0


def test_rates_leave_out_the_first_step_and_pauses(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.log.time.perf_counter", lambda: now[0])
    log = logger(tmp_path, steps=20)
    for step in range(1, 21):
        now[0] += 100.0 if step == 1 else 0.5  # the first step compiles
        log.train(step, {"loss": jnp.float32(1)}, waited=0.1)
        if step == 5:
            log.flush()
            now[0] += 50.0  # an evaluation
            log.evaluation(5, {"valid/auc": 0.7})
    log.flush()
    log.close()
    train = [r["values"] for r in read_metrics(tmp_path) if "train/loss" in r["values"]]
    for values in train:
        assert values["train/steps_per_s"] == pytest.approx(2.0)
        assert values["train/rows_per_s"] == pytest.approx(8.0)
        assert values["train/data_wait"] == pytest.approx(0.2)


class Step:
    """A loss that is ready only once somebody waits for it."""

    waited: list[int] = []

    def __init__(self, number: int):
        self.number = number

    def block_until_ready(self):
        self.waited.append(self.number)
        return self


def test_the_loop_runs_no_more_than_a_few_steps_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(Step, "waited", [])
    log = logger(tmp_path, every=100, steps=100)
    for step in range(1, AHEAD + 4):
        log.train(step, {"loss": Step(step)})
        assert Step.waited == list(range(1, step - AHEAD + 1))
    log.close()


def test_the_time_of_a_run_has_every_step_but_those_that_were_compiled(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.log.time.perf_counter", lambda: now[0])
    log = logger(tmp_path, steps=20)
    for step in range(1, 21):
        log.go_on()
        compiled = step in (1, 12)  # step 12 has a batch of another shape
        if compiled:
            log.pause()
        now[0] += 100.0 if compiled else 0.5
        log.train(step, {"loss": jnp.float32(1)}, compiled=compiled)
        if step == 5:
            log.flush()
            now[0] += 50.0  # an evaluation
    log.flush()
    assert log.timed == (18, pytest.approx(9.0))
    log.close()
    again = Logger(tmp_path, config=Logging(progress="none"), steps=30, batch_size=4, start=20, timed=log.timed)
    assert again.timed == (18, pytest.approx(9.0))
    again.close()


def test_what_is_not_finite_is_null_with_a_reason(tmp_path):
    log = logger(tmp_path)
    log.evaluation(7, {"valid/auc": float("nan"), "valid/x": float("inf")}, reasons={"valid/auc": "only one class"})
    log.close()
    (record,) = read_metrics(tmp_path)
    assert record["values"] == {"valid/auc": None, "valid/x": None}
    assert record["reasons"] == {"valid/auc": "only one class", "valid/x": "inf"}


@pytest.mark.parametrize("flush_at", [24, 30])
def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, flush_at):
    log = logger(tmp_path)
    with pytest.raises(NotFinite, match="nan at step 23") as stop:
        feed(log, range(1, flush_at + 1), bad=23)
        log.flush()
    log.close()
    assert stop.value.exit_code == 4 and stop.value.step == 23 and isinstance(stop.value, UserError)
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20]


def test_resuming_supersedes_later_lines(tmp_path):
    log = logger(tmp_path)
    feed(log, range(1, 31))
    log.flush()
    log.close()
    log = logger(tmp_path, start=10)
    feed(log, range(11, 21))
    log.flush()
    log.close()
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20]
    assert sum("resumed" in r for r in lines(tmp_path)) == 1
    logger(tmp_path, start=0).close()  # killed before its first checkpoint
    assert read_metrics(tmp_path) == []


def test_a_torn_last_line_is_cut_off_and_a_broken_one_is_named(tmp_path):
    log = logger(tmp_path)
    log.evaluation(1, {"a": 1.0})
    log.close()
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 2, "val')
    assert [r["step"] for r in read_metrics(tmp_path)] == [1]
    log = logger(tmp_path, start=1)
    log.evaluation(2, {"a": 2.0})
    log.close()
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]
    path.write_text("{}}\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics.jsonl:1: not JSON"):
        read_metrics(tmp_path)


def test_flushing_often_changes_no_loss(tmp_path):
    log = logger(tmp_path)
    for step in range(1, 31):
        feed(log, [step])
        log.flush()
    log.close()
    assert [r["values"]["train/loss"] for r in read_metrics(tmp_path)] == [5.5, 15.5, 25.5]


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    log = logger(tmp_path, progress="auto")
    feed(log, range(1, 31))
    log.flush()
    log.evaluation(30, {"valid/auc": 0.75})
    log.close()
    out = capsys.readouterr().err.splitlines()
    assert len(out) == 4 and out[0].startswith("step 10/30  loss 5.5000") and "rows/s" in out[0]
    assert out[-1] == "step 30/30  valid/auc 0.75"


def test_bar_in_a_terminal():
    text = io.StringIO()
    bar = Bar(steps=10, start=0, console=Console(file=text, force_terminal=True, width=120))
    report = bar.evaluating("valid")
    report(5, 10)
    report(10, 10)
    bar.step(10)
    bar.train(10, {"train/loss": 0.25, "train/steps_per_s": 2.0, "train/rows_per_s": 2e6, "train/data_wait": 0.0})
    bar.evaluation(10, {"valid/auc": 0.5})
    bar.close()
    assert "loss 0.2500" in text.getvalue() and "2M rows/s" in text.getvalue() and "valid/auc 0.5" in text.getvalue()


def test_tensorboard_and_profile_by_option(tmp_path):
    log = logger(tmp_path, tensorboard=True, profile=(2, 3), steps=4)
    feed(log, range(1, 5))
    log.flush()
    log.close()
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_numbers_are_short():
    assert [short(v) for v in (0.25, 812.3, 9999.0, 12_345, 2.5e6)] == ["0.25", "812", "9999", "12.3k", "2.5M"]
    assert [clock(s) for s in (12, 75, 3723)] == ["0:12", "1:15", "1:02:03"]
    assert figures(dict.fromkeys("abc", 1.0), most=2) == "a 1  b 1  and 1 more"


@pytest.mark.parametrize("fields", [{"every": 0}, {"profile": (5, 3)}])
def test_settings_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match="log"):
        Logging(**fields)
