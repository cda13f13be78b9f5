"""docs/your_data.md is run as it stands."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.__main__ import main as data_main
from train.__main__ import main as train_main


def write_logs(folder, rows=3000):
    rng = np.random.default_rng(0)
    folder.mkdir()
    item = rng.integers(0, 40, rows)
    table = pa.table(
        {
            "user_id": rng.integers(0, 200, rows),
            "item_id": [f"sku-{i}" for i in item],
            "item_history": [[f"sku-{i}" for i in rng.integers(0, 40, k)] for k in rng.integers(0, 25, rows)],
            "price": rng.lognormal(3, 1, rows),
            "timestamp": pa.array(1_700_000_000 + np.arange(rows), pa.timestamp("s")),
            "click": (rng.random(rows) < np.where(item < 20, 0.8, 0.2)).astype(np.int8),
        }
    )
    pq.write_table(table.slice(0, 2000), folder / "a.parquet")
    pq.write_table(table.slice(2000), folder / "b.parquet")


def test_the_page_runs(root, tmp_path, monkeypatch, capsys):
    page = (root / "docs" / "your_data.md").read_text()
    (config,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in config.splitlines() if line.strip()]) <= 22
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_clicks.py").write_text(config)
    write_logs(tmp_path / "logs")
    commands = re.findall(r"^python -m (\w+) (.*)$", page, re.MULTILINE)
    assert [name for name, _ in commands] == ["data", "train", "data"]
    assert data_main(commands[0][1].split()) == 0
    proposal = capsys.readouterr().out
    assert 'Label(name="click")' in proposal
    (tmp_path / "my_features.py").write_text(proposal)
    assert data_main(commands[2][1].split()) == 0
    assert (tmp_path / "vocabularies" / "item_id.vocab.parquet").exists()
    small = ["steps=40", "model.dim=4", "loader.batch_size=128", "optimizer.lr=0.01"]
    assert train_main([*commands[1][1].split(), *small]) == 0
    found = re.search(r"valid/auc\s+([0-9.]+)", capsys.readouterr().out)
    assert found and float(found[1]) > 0.6
