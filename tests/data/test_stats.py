import runpy
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.__main__ import main
from data.parquet import Parquet
from data.propose import propose
from data.stats import measure


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    rng = np.random.default_rng(0)
    n = 4000
    label = (rng.random(n) < 0.2).astype(int)
    folder = tmp_path_factory.mktemp("logs")
    columns = {
        "user_id": rng.integers(0, 50, n),
        "item_id": [f"i{k}" for k in rng.zipf(1.4, n) % 300],
        "item_history": [[f"i{k}" for k in range(r % 5)] for r in range(n)],
        "price": rng.lognormal(3, 2, n),
        "age": pa.array(rng.integers(18, 90, n).astype(float), mask=rng.random(n) < 0.1),
        "event_id": np.arange(n),
        "paid": pa.array(rng.random(n), mask=label == 0),
        "copy": label * 1.0,
        "state": rng.integers(0, 3, n) * 3 + label,
        "timestamp": np.sort(rng.integers(1_700_000_000, 1_700_900_000, n)),
        "click": label,
        "vector": pa.array(list(rng.random((n, 4))), pa.list_(pa.float32(), 4)),
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder


def test_leaks_are_found_and_the_innocent_are_not(logs):
    warnings = {column.name: " ".join(column.warnings) for column in measure(str(logs)).columns}
    assert "equals the label" in warnings["copy"]
    assert "known only after" in warnings["paid"]
    assert "predicts the label perfectly" in warnings["state"]
    assert "tells the date" in warnings["event_id"] and "of its own per row" in warnings["event_id"]
    for innocent in ("user_id", "item_id", "item_history", "price", "age", "timestamp", "click", "vector"):
        assert warnings[innocent] == "", innocent


def test_the_proposal_loads_and_reads_the_logs(logs, tmp_path, capsys):
    assert main(["stats", str(logs)]) == 0
    (tmp_path / "shop.py").write_text(capsys.readouterr().out)
    features = runpy.run_path(str(tmp_path / "shop.py"))["FEATURES"]
    kinds = {feature.name: feature.kind for feature in features.all}
    assert kinds["click"] == "label" and kinds["timestamp"] == "time" and kinds["vector"] == "dense"
    assert features["item_history"].of.table == features["item_id"].table
    assert features["price"].transform == "log1p" and features["age"].default is not None
    folder = tmp_path / "vocabularies"
    assert main(["vocab", str(tmp_path / "shop.py"), str(logs), "--folder", str(folder)]) == 0
    source = Parquet(path=str(logs), features=features, vocabularies=str(folder)).make()
    assert len(source) == 4000 and source.rejects.count == 0


def test_rows_sorted_by_label_and_times_out_of_order(tmp_path):
    n = 2000
    pq.write_table(
        pa.table({"click": np.repeat([0, 1], n // 2), "time": np.tile([5, 3], n // 2), "x": np.arange(n) % 7}),
        tmp_path / "a.parquet",
    )
    text = propose(measure(str(tmp_path)))
    assert "rows are sorted by the label" in text and "out of order 1000 times" in text


def test_commands_name_what_is_wrong(tmp_path, capsys):
    assert main(["stats", str(tmp_path / "none")]) == 2
    assert "no Parquet file" in capsys.readouterr().err
    assert main(["show", "mal"]) == 2
    assert "did you mean 'mall'" in capsys.readouterr().err
    done = subprocess.run([sys.executable, "-m", "data", "--help"], capture_output=True, text=True, check=True)
    assert "proposed feature file" in done.stdout
