"""docs/embeddings.md is run as it stands."""

import io
import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data.__main__ import main as data_main
from data.features import Dense, Features, Label
from data.parquet import Parquet
from data.vectors import read
from serve.__main__ import main as serve_main
from serve.index.open import open_index
from train.__main__ import main as train_main

WORDS = ["red", "green", "blue", "warm", "light", "long", "short", "shirt", "shoe", "coat", "bag", "ring"]


def png(rng):
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(out, "png")
    return out.getvalue()


def write_items(folder, *, rows, start=0):
    rng = np.random.default_rng(start)
    table = {
        "sku": [f"sku-{i}" for i in range(start, start + rows)],
        "image": [png(rng) for _ in range(rows)],
        "title": [" ".join(rng.choice(WORDS, 4)) for _ in range(rows)],
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / f"{start}.parquet")


def test_the_page_runs(root, tmp_path, monkeypatch, capsys):
    page = (root / "docs" / "embeddings.md").read_text()
    (config,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_encoder.py").write_text(config)
    write_items(tmp_path / "items", rows=60)
    tokens, train, embed, index = (line.split()[2:] for line in re.findall(r"^python -m .*$", page, re.MULTILINE))
    assert data_main(tokens[1:]) == 0
    small = ["steps=2", "loader.batch_size=16", "model.vision.depth=1", "model.language.depth=1"]
    assert train_main([*train[1:], *small]) == 0
    few = ["--batch", "32"]
    assert serve_main([*embed, *few][1:]) == 0
    assert "wrote vectors: 60 vectors of 128; 60 new, 0 changed, 0 kept, 0 removed" in capsys.readouterr().out
    write_items(tmp_path / "items", rows=5, start=100)
    table = pq.read_table("items/0.parquet").slice(1)
    pq.write_table(
        table.set_column(2, "title", pa.array(["a new title", *table["title"].to_pylist()[1:]])), "items/0.parquet"
    )
    assert serve_main([*embed, *few][1:]) == 0
    assert "wrote vectors: 64 vectors of 128; 5 new, 1 changed, 58 kept, 1 removed" in capsys.readouterr().out
    assert serve_main(index[1:]) == 0
    ids, vectors, model = read(tmp_path / "vectors")
    found = open_index(tmp_path / "index", model=model)
    assert found.search(vectors[:3], k=1)[0][:, 0].tolist() == ids[:3].tolist() == ["sku-1", "sku-2", "sku-3"]
    (join,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    (tmp_path / "logs").mkdir()
    pq.write_table(pa.table({"sku": ["sku-3", "sku-1", "sku-3"], "click": [0, 1, 1]}), "logs/a.parquet")
    duckdb.sql(join)
    features = Features(all=(Dense(name="content", dim=128, role="item"), Label(name="click")))
    rows = Parquet(path="logs_with_content.parquet", features=features).make()
    skus = pq.read_table("logs_with_content.parquet")["sku"].to_pylist()
    assert sorted(skus) == ["sku-1", "sku-3", "sku-3"]
    wanted = np.stack([vectors[ids.tolist().index(sku)] for sku in skus])
    np.testing.assert_array_equal(rows.take(np.arange(3))["content"], wanted)
    assert serve_main([*embed, *few, "--output", "vectors.parquet"][1:]) == 2
    assert "raw items become a folder of shards" in capsys.readouterr().err
    assert serve_main([*embed, *few, "--vectors", "page"][1:]) == 2
    assert "the model gives" in capsys.readouterr().err
