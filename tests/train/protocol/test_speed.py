"""Rates are rows over seconds of the compiled step, of the fastest round."""

import json

import pytest

from data.errors import UserError
from tests.train.tiny import ROWS, tiny
from train.protocol import speed
from train.protocol.speed import Speed

pytestmark = pytest.mark.usefixtures("storable_tests")


def test_rows_over_seconds_of_the_fastest_round(tmp_path, monkeypatch):
    """A clock that ticks once a reading, twice as slow in the first round that counts."""
    readings = []

    def now():
        readings.append(None)
        spans, n = [1.0, 1.0, 4.0, 4.0, 2.0, 2.0], len(readings)  # compiling; round 1; round 2
        return sum(spans[: n // 2]), 0.5 * sum(spans[: n // 2])

    monkeypatch.setattr(speed, "_now", now)
    stage = Speed(experiments={"dnn": tiny()}, steps=3, batches=2, rounds=2)
    results = stage.run(out=tmp_path, say=lambda line: None)
    assert len(readings) == 12
    assert results == {
        "dnn/train/rows_per_second": 3 * 64 / 2.0,
        "dnn/train/rows_per_cpu_second": 3 * 64 / 1.0,
        "dnn/score/rows_per_second": 2 * 128 / 2.0,
        "dnn/score/rows_per_cpu_second": 2 * 128 / 1.0,
        "dnn/train/seconds_per_epoch": ROWS / (3 * 64 / 2.0),
    }
    stored = json.loads((tmp_path / "dnn.json").read_text())
    assert {f"dnn/{name}": value for name, value in stored.items()} == results


def test_only_the_models_of_a_part_are_timed():
    stage = Speed(experiments={"a": tiny(), "b": tiny(steps=3)})
    assert stage.among({"b", "split"}).experiments == {"b": tiny(steps=3)}
    assert stage.among({"split"}) is None


def test_an_evaluator_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no evaluator 'test'; there are valid"):
        Speed(experiments={"a": tiny()}, evaluator="test").run(out=tmp_path, say=lambda line: None)
    with pytest.raises(ValueError, match="at least 1"):
        Speed(experiments={"a": tiny()}, rounds=0)
