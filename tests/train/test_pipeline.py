"""Pipelines: order by reference, done stages skipped, changed stages and what hangs on them run again."""

import json
import signal
from pathlib import Path

import chz
import pytest

from data.errors import UserError
from tests.train.tiny import tiny
from train import loop
from train.pipeline import Compare, Interrupted, Pipeline, Stage, Train, references, run_pipeline
from train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("storable_tests")

RAN = []


@chz.chz
class Write(Stage):
    """Writes the sum of its number and those of the files it reads."""

    number: int
    reads: tuple[str, ...] = ()
    fails: bool = False

    def run(self, *, out, say):
        RAN.append(self.number)
        if self.fails:
            raise UserError("broke on purpose")
        total = self.number + sum(int(Path(path).read_text()) for path in self.reads)
        (out / "total.txt").write_text(str(total))
        return {"total": float(total)}


@pytest.fixture(autouse=True)
def fresh():
    RAN.clear()


def pipeline(a=1, b=10, c=100, **fields):
    return Pipeline(
        stages={
            "c": Write(number=c, reads=("@b/total.txt", "@a/total.txt")),
            "a": Write(number=a),
            "b": Write(number=b, reads=("@a/total.txt",), **fields),
        }
    )


def run(p, tmp_path):
    return run_pipeline(p, workdir=tmp_path / "run", say=lambda line: None)


def test_stages_run_after_what_they_read(tmp_path):
    figures = run(pipeline(), tmp_path)
    assert RAN == [1, 10, 100]
    assert {name: f["total"] for name, f in figures.items()} == {"a": 1, "b": 11, "c": 112}
    assert (tmp_path / "run/c/total.txt").read_text() == "112"


def test_done_stages_are_skipped_and_keep_their_figures(tmp_path):
    first = run(pipeline(), tmp_path)
    RAN.clear()
    assert run(pipeline(), tmp_path) == first
    assert RAN == []


def test_a_changed_stage_and_what_hangs_on_it_run_again(tmp_path):
    run(pipeline(), tmp_path)
    RAN.clear()
    figures = run(pipeline(b=20), tmp_path)
    assert RAN == [20, 100]
    assert figures["c"]["total"] == 122
    RAN.clear()
    assert run(pipeline(), tmp_path)["c"]["total"] == 112  # going back costs nothing
    assert RAN == []


def test_a_stage_that_failed_runs_again_and_those_before_it_do_not(tmp_path):
    with pytest.raises(UserError, match="on purpose"):
        run(pipeline(fails=True), tmp_path)
    RAN.clear()
    run(pipeline(), tmp_path)
    assert RAN == [10, 100]


def test_unknown_and_circular_references_are_refused():
    with pytest.raises(ValueError, match="no stage is called that; did you mean @first"):
        Pipeline(stages={"first": Write(number=1), "second": Write(number=2, reads=("@frist/total.txt",))})
    with pytest.raises(ValueError, match="in a circle"):
        Pipeline(stages={n: Write(number=1, reads=(f"@{o}/x",)) for n, o in (("a", "b"), ("b", "a"))})


def test_references_are_found_at_any_depth():
    assert references({"x": ["@a/b", {"y": "@c"}], "z": "a@b", "n": 3}) == ["a", "c"]


def test_a_part_of_a_pipeline_keeps_what_it_needs_and_its_rows_of_the_tables(tmp_path):
    p = Pipeline(
        stages={
            **pipeline().stages,
            "other": Write(number=5),
            "table": Compare(title="t", rows={"b": "@b", "other": "@other"}, metrics=("total",)),
        }
    )
    part = p.only(["b"])
    assert set(part.stages) == {"a", "b", "table"}
    assert part.stages["table"].rows == {"b": "@b"}
    assert run(part, tmp_path)["table"] == {"b/total": 11.0}
    assert RAN == [1, 10]
    RAN.clear()
    assert run(p, tmp_path)["table"] == {"b/total": 11.0, "other/total": 5.0}
    assert sorted(RAN) == [5, 100]  # what the part did stays done
    assert set(p.only(["a"]).stages) == {"a"}
    with pytest.raises(UserError, match="no stage is called 'tabel'; did you mean 'table'"):
        p.only(["tabel"])


@pytest.mark.parametrize("late", [False, True], ids=["in a step", "in the last evaluation"])
def test_nothing_follows_a_stage_that_was_asked_to_stop(tmp_path, monkeypatch, late):
    """Even where the request came so late that the stage had ended; the same command goes on behind it."""
    p = Pipeline(stages={"a": Train(experiment=tiny(every=None)), "b": Write(number=1)})
    owner, name = (loop._Run, "_conclude") if late else (loop, "put_batch")
    original = getattr(owner, name)

    def ask(*args, **words):
        signal.raise_signal(signal.SIGTERM)
        return original(*args, **words)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, ask)
        with pytest.raises(Interrupted, match=f"stopped at step {12 if late else 1} of 12"):
            run(p, tmp_path)
    assert not RAN
    assert set(run(p, tmp_path)) == {"a", "b"} and RAN == [1]


def test_a_training_stage_is_a_workdir_and_its_figures_are_compared(tmp_path):
    p = Pipeline(
        stages={
            "short": Train(experiment=tiny(steps=1)),
            "long": Train(experiment=tiny(steps=12)),
            "gain": Compare(title="gain", rows={"short": "@short", "long": "@long"}, metrics=("valid/auc",)),
        }
    )
    said = []
    figures = run_pipeline(p, workdir=tmp_path / "run", say=said.append)
    assert figures["gain"] == {
        "short/valid/auc": figures["short"]["valid/auc"],
        "long/valid/auc": figures["long"]["valid/auc"],
    }
    gain = figures["long"]["valid/auc"] - figures["short"]["valid/auc"]
    assert any(f"({gain:+.4f})" in line for line in said)
    assert Workdir(tmp_path / "run/long", access="read").read_config()["steps"] == 12
    summary = json.loads((tmp_path / "run/stages.json").read_text())
    assert {s["name"]: s["status"] for s in summary} == {"short": "ran", "long": "ran", "gain": "ran"}


def test_comparing_a_figure_that_is_not_there_names_those_that_are(tmp_path):
    p = Pipeline(stages={"a": Write(number=1), "t": Compare(title="t", rows={"a": "@a"}, metrics=("auc",))})
    with pytest.raises(UserError, match="no figure 'auc'; it has total"):
        run(p, tmp_path)
