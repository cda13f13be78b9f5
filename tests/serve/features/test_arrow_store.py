import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from serve.__main__ import main
from serve.features import arrow_store
from serve.features import store as store_module
from serve.features.arrow_store import ArrowStore, build
from serve.features.store import open_store


def table(rng, *, rows=500, text=False):
    ids = rng.permutation(10_000)[:rows]
    return pa.table(
        {
            "item": pa.array([f"i{i}" for i in ids] if text else ids, pa.string() if text else pa.int32()),
            "price": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
            "tags": [list(map(int, rng.integers(0, 9, rng.integers(0, 4)))) for _ in range(rows)],
            "vector": pa.array(rng.normal(size=(rows, 3)).astype(np.float32).tolist(), pa.list_(pa.float32(), 3)),
        }
    )


@pytest.mark.parametrize("text", [False, True])
def test_finds_each_row_by_its_id_and_says_what_it_does_not_know(rng, tmp_path, text):
    rows = table(rng, text=text)
    build(rows, id="item", output=tmp_path / "store")
    by_id = {row["item"]: row for row in rows.to_pylist()}
    known = rng.permutation(rows["item"].to_pylist())[:50].tolist()
    asked = [x for pair in zip(known, [f"j{i}" if text else 20_000 + i for i in range(50)], strict=True) for x in pair]
    found = ArrowStore(tmp_path / "store").get([*asked, known[0]], names=["tags", "item", "price", "vector"])
    assert found.found.tolist() == [True, False] * 50 + [True]
    absent = {"item": None, "price": None, "tags": None, "vector": None}
    assert found.columns.to_pylist() == [
        {n: by_id.get(i, absent)[n] for n in ("tags", "item", "price", "vector")} for i in [*asked, known[0]]
    ]


def test_an_id_of_another_hash_bucket_or_with_an_equal_hash_is_not_another_row(rng, tmp_path, monkeypatch):
    store = build(pa.table({"item": [5], "price": [1.0]}), id="item", output=tmp_path / "store")
    for module in (arrow_store, store_module):
        monkeypatch.setattr(module, "hash_column", lambda values: np.full(len(values), store._hashes[0]))
    assert store.get([5, 6], names=["price"]).found.tolist() == [True, False]
    with pytest.raises(UserError, match="ids 7 and 8 have one hash"):
        build(pa.table({"item": [7, 8]}), id="item", output=tmp_path / "other")


def test_an_id_whose_hash_lies_beyond_all_rows_is_not_known(tmp_path):
    store = build(pa.table({"item": [5], "price": [1.0]}), id="item", output=tmp_path / "store")
    assert not store.get(list(range(6, 56)), names=["price"]).found.any()


def test_the_version_is_that_of_the_rows_whatever_their_order(rng, tmp_path):
    rows = table(rng)
    first = build(rows, id="item", output=tmp_path / "store").version
    assert build(rows.take(rng.permutation(len(rows))), id="item", output=tmp_path / "store").version == first
    assert build(rows.slice(1), id="item", output=tmp_path / "store").version != first
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_it_is_mapped_and_not_read(tmp_path):
    """A store of 80 MB may not cost the process that much."""
    rows = 100_000
    big = pa.table({"item": np.arange(rows), "v": pa.FixedSizeListArray.from_arrays(np.zeros(rows * 200, "f4"), 200)})
    build(big, id="item", output=tmp_path / "store")
    before = pa.total_allocated_bytes()
    store = open_store(str(tmp_path / "store"))
    assert len(store.get(np.array([3, 99_999]), names=["v"]).columns) == 2
    assert pa.total_allocated_bytes() - before < 5_000_000


def test_a_damaged_or_strange_folder_is_refused(rng, tmp_path):
    build(table(rng), id="item", output=tmp_path / "store")
    raw = bytearray((tmp_path / "store" / "rows.arrow").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "store" / "rows.arrow").write_bytes(raw)
    with pytest.raises(UserError, match=r"rows\.arrow is damaged"):
        ArrowStore(tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not a feature store"):
        ArrowStore(tmp_path / "empty")


def test_wrong_questions_and_tables_are_named(rng, tmp_path):
    store = build(table(rng), id="item", output=tmp_path / "store")
    with pytest.raises(UserError, match=r"has no column 'prise'; did you mean 'price'\?"):
        store.get([1], names=["prise"])
    with pytest.raises(UserError, match="ids are integers, not 'a'"):
        store.get(["a"], names=["price"])
    with pytest.raises(UserError, match="does not fit into int32"):
        store.get([1 << 40], names=["price"])
    with pytest.raises(UserError, match="id 3 stands twice"):
        build(pa.table({"item": [3, 4, 3]}), id="item", output=tmp_path / "b")
    with pytest.raises(UserError, match="1 rows have no 'item'"):
        build(pa.table({"item": [3, None]}), id="item", output=tmp_path / "b")
    with pytest.raises(UserError, match="ids are integers or strings, column 'x' is double"):
        build(pa.table({"x": [0.5]}), id="x", output=tmp_path / "b")
    with pytest.raises(UserError, match="holds no rows"):
        build(table(rng).slice(0, 0), id="item", output=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_command_writes_a_store_without_model_code(rng, tmp_path, root, capsys):
    pq.write_table(table(rng), tmp_path / "items.parquet")
    args = ["features", str(tmp_path / "items.parquet"), "--id", "item", "--output", str(tmp_path / "s")]
    assert main([*args, "--columns", "price,tags"]) == 0
    assert "500 rows of 3 columns" in capsys.readouterr().out
    code = f"""
import sys
from serve.features.store import open_store
assert open_store({str(tmp_path / "s")!r}).schema.names == ["item", "price", "tags"]
ours = [m for m in sys.modules if m.split(".")[0] in ("modules", "train", "jax", "redis")]
assert not ours, ours
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    assert main(["features", str(tmp_path / "items.parquet"), "--id", "sku", "--output", str(tmp_path / "t")]) == 2
    assert "no column 'sku'" in capsys.readouterr().err
