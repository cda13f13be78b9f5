"""From one's own Parquet through the command line: few bad rows are set aside and named, many stop the run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.__main__ import main

ROWS = 2000

CONFIG = """
from data.features import Categorical, Features, Label, Numeric
from data.parquet import Parquet
from modules.ctr.dnn import DNN
from modules.layers.mlp import MLP
from data.pipeline import Loader
from train.experiment import Experiment
from train.tasks.pointwise import Pointwise

FEATURES = Features(all=(Categorical(name="item", rows=50), Numeric(name="price"), Label(name="click")))


def get_config():
    source = Parquet(path={path!r}, features=FEATURES, cache={cache!r})
    model = DNN(dim=4, mlp=MLP(widths=(8,)))
    return Experiment(model=model, task=Pointwise(), source=source, loader=Loader(batch_size=64), steps=3)
"""


@pytest.fixture
def run(tmp_path):
    def go(**spoilt):
        rng = np.random.default_rng(0)
        columns = {
            "item": rng.integers(2, 50, ROWS).tolist(),
            "price": rng.normal(size=ROWS).tolist(),
            "click": rng.integers(0, 2, ROWS).tolist(),
        }
        for name, (value, count) in spoilt.items():
            for row in range(count):
                columns[name][row * 3] = value
        pq.write_table(pa.table(columns), tmp_path / "logs.parquet")
        config = tmp_path / "mine.py"
        config.write_text(CONFIG.format(path=str(tmp_path / "logs.parquet"), cache=str(tmp_path / "cache")))
        return main([str(config), "--workdir", str(tmp_path / "run"), "log.progress=none"])

    return go


def test_few_bad_rows_are_named_beside_the_model(run, tmp_path):
    assert run(click=(None, 4), item=(50, 3), price=(float("nan"), 2)) == 0
    named = [json.loads(line) for line in (tmp_path / "run/rejects.jsonl").read_text().splitlines()]
    found = sorted({(r["row"], r["field"]) for r in named})
    assert {row for row, _ in found} == {0, 3, 6, 9}
    assert {field for _, field in found} == {"click", "item", "price"}
    assert all(r["file"].endswith("logs.parquet") and r["why"] for r in named)


def test_many_bad_rows_stop_the_run_with_the_first_ten(run, capsys, tmp_path):
    assert run(click=(None, 40)) == 3
    error = capsys.readouterr().err
    assert error.count("logs.parquet") >= 10
    assert "click" in error
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_a_missing_column_names_the_nearest(run, capsys, tmp_path):
    assert run() == 0
    table = pq.read_table(tmp_path / "logs.parquet")
    pq.write_table(table.rename_columns(["itme", "price", "click"]), tmp_path / "logs.parquet")
    assert main([str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "'item'" in error and "itme" in error and "logs.parquet" in error
