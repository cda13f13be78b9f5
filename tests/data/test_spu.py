"""Products out of listings: blocks, founders, attributes, stable ids, one product of 50,000 listings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.__main__ import main
from data.errors import UserError
from data.spu import Columns, _alike, _founded, build, stable

BASE = "tabo retro wool coat red slim winter warm long soft"


def listings(rows, **columns):
    names = ("id", "category", "brand", "title")
    table = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return pa.table({**table, **columns})


def run(tmp_path, table, *, previous=None, threshold=0.85, name="out", **columns):
    path, output = tmp_path / "items.parquet", tmp_path / f"{name}.parquet"
    pq.write_table(table, path)
    counted = build(path, columns=Columns(**columns), output=output, previous=previous, threshold=threshold)
    made = pq.read_table(output)
    return dict(zip(made["id"].to_pylist(), made["spu"].to_pylist(), strict=True)), counted


def test_alike_listings_of_a_block_are_one_product(tmp_path):
    rows = [
        (1, "coat", "tabo", BASE),
        (2, "coat", "tabo", BASE + " new"),
        (3, "coat", "tabo", "tabo sport cotton coat blue wide"),
        (4, "coat", "other", BASE + " new"),
        (5, "shoe", "tabo", BASE),
    ]
    spu, counted = run(tmp_path, listings(rows))
    assert spu[1] == spu[2]
    assert len({spu[1], spu[3], spu[4], spu[5]}) == 4
    assert (counted["listings"], counted["products"], counted["largest"]) == (5, 4, 2)


def test_small_differences_do_not_chain(rng):
    angles = np.arange(8) * 0.3
    line = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = _founded(line, np.zeros((8, 1), np.uint64), threshold=float(np.cos(0.35)))
    assert found.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_tiles_change_nothing(rng, monkeypatch):
    centres = rng.normal(size=(40, 16))
    vectors = centres[rng.integers(0, 40, 300)] + 0.05 * rng.normal(size=(300, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    attributes = np.zeros((300, 1), np.uint64)
    whole = _founded(vectors, attributes, threshold=0.8)
    monkeypatch.setattr("data.spu.TILE", 7)
    monkeypatch.setattr("data.spu.FOUNDERS", 5)
    np.testing.assert_array_equal(_founded(vectors, attributes, threshold=0.8), whole)
    assert len(set(whole.tolist())) == 40


def test_stated_attributes_that_differ_keep_listings_apart(tmp_path):
    rows = [(i, "coat", "tabo", BASE) for i in range(4)]
    table = listings(rows, colour=["red", "blue", "red", None])
    spu, _ = run(tmp_path, table, attributes=("colour",))
    assert spu[0] == spu[2] != spu[1]
    assert spu[3] in (spu[0], spu[1])


def test_content_vectors_count_half(tmp_path):
    rows = [(i, "coat", "tabo", BASE) for i in range(3)]
    vectors = pa.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], pa.list_(pa.float32()))
    spu, _ = run(tmp_path, listings(rows, look=vectors), vector="look")
    assert spu[0] == spu[1] != spu[2]


def test_an_equal_listing_without_brand_joins_but_never_joins_two_brands(tmp_path):
    rows = [(1, "coat", "tabo", BASE), (2, "coat", "", BASE), (3, "shoe", "a", BASE), (4, "shoe", "b", BASE)]
    rows += [(5, "shoe", None, BASE)]
    spu, _ = run(tmp_path, listings(rows))
    assert spu[1] == spu[2]
    assert len({spu[3], spu[4], spu[5]}) == 3


def test_listings_that_say_nothing_are_not_alike(tmp_path):
    spu, _ = run(tmp_path, listings([(1, "coat", "tabo", ""), (2, "coat", "tabo", None), (3, "coat", "tabo", "")]))
    assert len(set(spu.values())) == 3


def test_an_id_given_twice_counts_as_first_given(tmp_path):
    rows = [
        ("x", "coat", "tabo", BASE),
        ("y", "shoe", "tabo", "other words here"),
        ("x", "shoe", "tabo", "other words"),
    ]
    spu, counted = run(tmp_path, listings(rows))
    assert set(spu) == {"x", "y"} and counted["repeated_ids"] == 1 and counted["products"] == 2


def test_ids_stay_by_majority():
    cluster = np.array([0, 0, 0, 3, 3, 5, 6, 6, 8])
    old = np.array([7, 7, 9, 7, -1, 4, 2, 2, 2])
    spu, free = stable(cluster, old=old, first_free=20)
    # 7 went two of three with the first cluster, which takes it though it also holds 9; 4 stays; 2 stays with two.
    assert spu.tolist() == [7, 7, 7, 20, 20, 4, 2, 2, 21] and free == 22
    halves, _ = stable(np.array([0, 1]), old=np.array([3, 3]), first_free=5)
    assert halves.tolist() == [5, 6]  # neither half is a majority


def test_a_number_is_never_used_again(tmp_path):
    rows = [(1, "coat", "tabo", BASE), (2, "coat", "tabo", "quite other words stand here")]
    run(tmp_path, listings(rows), name="first")
    fewer, counted = run(tmp_path, listings(rows[:1]), previous=tmp_path / "first.parquet", name="second")
    assert fewer == {1: 0} and counted["kept"] == 1
    again, _ = run(tmp_path, listings(rows[::-1]), previous=tmp_path / "second.parquet", name="third")
    assert again == {1: 0, 2: 2}


def test_one_product_of_50_000_listings_is_never_compared_pair_by_pair(tmp_path, monkeypatch):
    compared = []

    def watched(vectors, attributes, rows, others):
        compared.append(len(rows) * len(others))
        return _alike(vectors, attributes, rows, others)

    monkeypatch.setattr("data.spu._alike", watched)
    titles = [f"{BASE} {i % 997}" for i in range(50_000)]
    table = pa.table({"id": np.arange(50_000), "category": ["c"] * 50_000, "brand": ["b"] * 50_000, "title": titles})
    spu, counted = run(tmp_path, table, threshold=0.7)
    assert counted["products"] == 1 and counted["largest"] == 50_000 and set(spu.values()) == {0}
    assert sum(compared) < 2e6


def test_the_command_and_what_it_refuses(tmp_path, capsys):
    path, output = tmp_path / "items.parquet", tmp_path / "spu.parquet"
    pq.write_table(listings([(1, "coat", "tabo", BASE)]).rename_columns(["number", "category", "brand", "title"]), path)
    assert main(["spu", str(path), "--output", str(output), "--id", "number"]) == 0
    assert "products: 1" in capsys.readouterr().out
    assert main(["spu", str(path), "--output", str(output)]) == 2
    assert "no column 'id'" in capsys.readouterr().err
    with pytest.raises(UserError, match="was not written by this command"):
        build(path, columns=Columns(id="number"), output=output, previous=Path(path), threshold=0.9)
    with pytest.raises(UserError, match="cosine above 0"):
        build(path, columns=Columns(id="number"), output=output, previous=None, threshold=1.5)
