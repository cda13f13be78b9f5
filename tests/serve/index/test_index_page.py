"""docs/index.md is run as it stands, and the command says what went wrong."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve.__main__ import main
from serve.index.open import open_index


def write(path, *, ids, vectors, model="m1"):
    np.savez(path, id=np.array(ids), vector=np.asarray(vectors, np.float32), model=model)


def write_attributes(path, *, ids):
    columns = {
        "id": ids,
        "category": [("shoes", "bags", "hats")[i % 3] for i in ids],
        "price": [float(i % 40) for i in ids],
        "active": [i % 4 != 0 for i in ids],
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def shop(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    vectors = rng.normal(size=(300, 8))
    write("items.npz", ids=range(300), vectors=vectors)
    write_attributes("items.parquet", ids=list(range(300)))
    write("users.npz", ids=[f"user-{i}" for i in range(20)], vectors=rng.normal(size=(20, 8)))
    write("new.npz", ids=[299, 1000], vectors=10 * vectors[:2])
    write_attributes("new.parquet", ids=[1000])
    return vectors


def test_the_page_runs(root, shop, capsys, monkeypatch):
    monkeypatch.setattr("serve.index.recall.FEWEST", 100)
    page = (root / "docs" / "index.md").read_text()
    lines = [shlex.split(line)[3:] for line in re.findall(r"^python -m serve .*$", page, re.MULTILINE)]
    said = []
    for words in lines:
        assert main(words) == 0, words
        said.append(capsys.readouterr().out)
    exact, fast, live, info, found, filtered, upserted, deleted, merged = said
    assert "wrote exact: 300 vectors of 8\nengine exact (asked for)" in exact
    assert re.search(r"engine scann, recall at 10 [01]\.\d+, recall at 100 .*reach a recall of 0.95", fast)
    assert "engine scann" in live
    about = json.loads(info)
    assert (about["kind"], about["engine"], about["rows"], about["model"]) == ("live", "scann", 300, "m1")
    assert about["checksums"] == "ok" and about["recall"]["at"]["10"] > 0.8
    assert about["attributes"] == {"category": "text", "price": "number", "active": "truth"}
    assert found.count("\nuser-") == 4 and "and 15 more queries" in found
    assert "wrote found.parquet: 200 rows" in filtered
    rows = pq.read_table("found.parquet").to_pylist()
    assert {row["query"] for row in rows} == {f"user-{i}" for i in range(20)}
    assert [row["rank"] for row in rows[:10]] == list(range(1, 11))
    assert all(row["id"] % 3 != 2 and row["id"] % 40 <= 20 and row["id"] % 4 for row in rows)
    assert all(a["score"] >= b["score"] for a, b in pairwise(rows) if a["query"] == b["query"])
    assert "shop: 1 added, 1 replaced, 0 deleted, 0 unknown; 301 items" in upserted
    assert "0 added, 0 replaced, 3 deleted, 0 unknown; 298 items" in deleted
    assert "shop: 298 items, engine scann" in merged
    index = open_index(Path("shop"), model="m1")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"queries": shop[:2].astype(np.float32)}
    exec(compile(code, "docs/index.md", "exec"), names)
    assert names["ids"].shape == (2, 10)
    assert index.search(shop[:1], k=1)[0].tolist() == [[299]]
    assert index.stats()["new"] == index.stats()["dead"] == 0


def test_ids_of_a_file_and_of_an_index_with_strings(shop, capsys, tmp_path):
    write("named.npz", ids=["a", "b", "c d"], vectors=np.eye(3))
    assert main(["index", "named.npz", "--output", "named", "--engine", "live", "--metric", "cosine"]) == 0
    (tmp_path / "gone.txt").write_text("a\nc d\n\nnobody\n")
    assert main(["index", "named", "--delete", "@gone.txt"]) == 0
    assert "2 deleted, 1 unknown; 1 items" in capsys.readouterr().out
    write("asked.npz", ids=[7], vectors=5 * np.ones((1, 3)))
    assert main(["index", "named", "--search", "asked.npz"]) == 0
    assert capsys.readouterr().out == "7: b (0.5774)\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("shop --add new.npz", "id 299 is in the index, and 0 more; upsert them"),
        ("shop --upsert other.npz", "holds vectors of model 'm2', shop those of 'm1'"),
        ("shop --upsert narrow.npz", "holds vectors of 3, those of the index have 8"),
        ("shop --upsert twice.npz", "id 5 stands twice"),
        ("shop --search narrow.npz", "holds vectors of 3, those of the index have 8"),
        ("shop --delete sku-3", "ids of this index are integers"),
        ("shop --search users.npz --where {\"colour\":1}", "no attribute 'colour'; it has active, category, price"),
        ("shop --info --k 3", "--k means nothing with --info"),
        ("shop --delete 3 --attributes items.parquet", "--attributes means nothing with --delete"),
        ("exact --upsert new.npz", "exact stays as it was built; build it with --engine live"),
        ("items.npz --output shop --queries narrow.npz", "holds vectors of 3"),
        ("none.npz --output x", "there are no vectors"),
        ("none --info", "is not a folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(shop, capsys, words, why):
    for engine in ("live", "exact"):
        name = {"live": "shop", "exact": "exact"}[engine]
        build = ["index", "items.npz", "--output", name, "--engine", engine, "--attributes", "items.parquet"]
        assert main(build) == 0
    write("other.npz", ids=[1], vectors=np.ones((1, 8)), model="m2")
    write("narrow.npz", ids=[1], vectors=np.ones((1, 3)))
    write("twice.npz", ids=[5, 5], vectors=np.ones((2, 8)))
    before = open_index(Path("shop")).search(shop[:5], k=300)
    capsys.readouterr()
    assert main(["index", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert why in error and error.count("\n") == 1 and not out
    for a, b in zip(before, open_index(Path("shop")).search(shop[:5], k=300), strict=True):
        np.testing.assert_array_equal(a, b)


def test_items_without_attributes_are_told(shop, capsys):
    write_attributes("some.parquet", ids=[*range(10, 300), 777])
    assert main(["index", "items.npz", "--output", "i", "--attributes", "some.parquet"]) == 0
    assert "10 items have no row in some.parquet, 1 rows there are of other items" in capsys.readouterr().out
