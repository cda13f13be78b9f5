"""Raw users and candidates: encoded and scored as rows of a file are."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve.artifact import load
from serve.inputs import ParquetInput
from tests.serve.up.conftest import ask, export, serving

USER = {"history": [3, 4, 5, 6], "age": 0.5}
ITEMS = {"item": [1, 2, 3, 4, 19], "price": [0.1, -2.0, 3, 0.4, 1e-3]}


def rank(app, body, **options):
    return ask(app, "POST", "/v1/rank", json=body, **options)


def by_file(artifact, tmp_path, *, user, items):
    """Scores of the same rows as batch scoring reads them."""
    rows = len(items["item"])
    table = pa.table({**items, **{name: [value] * rows for name, value in user.items()}})
    pq.write_table(table, tmp_path / "x.parquet")
    read = ParquetInput(tmp_path / "x.parquet", features=artifact.features, vocabularies=None)
    (chunk,) = read.read(read.spans(rows=100)[0], rows=100)
    return artifact(chunk.rows)["score"], chunk


def test_ranks_as_batch_scoring_scores(app, exported, tmp_path):
    answer = rank(app, {"user": USER, "candidates": ITEMS})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    artifact = load(exported)
    wanted, _ = by_file(artifact, tmp_path, user=USER, items=ITEMS)
    np.testing.assert_allclose(found["scores"]["score"], wanted, atol=1e-6)
    assert found["order"] == np.argsort(-wanted, kind="stable").tolist()
    assert found["versions"] == {"model": artifact.version}
    assert found["notes"] == [{"field": "history", "why": "longer than 3, oldest dropped", "count": 1}]
    assert "rejects" not in found and np.shape(found["scores"]["pair"]) == (5, 2)


def test_objects_and_columns_say_the_same(app):
    rows = [dict(zip(ITEMS, values, strict=True)) for values in zip(*ITEMS.values(), strict=True)]
    columns, objects = (rank(app, {"user": USER, "candidates": c}).json() for c in (ITEMS, rows))
    assert columns == objects


def test_k_cuts_the_order_and_by_names_the_output(app):
    whole = rank(app, {"user": USER, "candidates": ITEMS}).json()["order"]
    assert rank(app, {"user": USER, "candidates": ITEMS, "k": 2, "by": "score"}).json()["order"] == whole[:2]


def test_a_model_without_a_program_for_requests_ranks_the_same(app, tmp_path):
    export(tmp_path, request=False)
    with serving(tmp_path) as plain:
        one, two = (rank(a, {"user": USER, "candidates": ITEMS}).json() for a in (app, plain))
    np.testing.assert_allclose(one["scores"]["score"], two["scores"]["score"], atol=1e-6)


def test_a_faulty_candidate_is_named_and_the_others_are_ranked(app, exported, tmp_path):
    items = {"item": [1, 20, 3, None, 4], "price": [0.1, 1, None, 0.5, 1e39]}
    found = rank(app, {"user": USER, "candidates": items}).json()
    wanted, chunk = by_file(load(exported), tmp_path, user=USER, items=items)
    assert [i for i, s in enumerate(found["scores"]["score"]) if s is not None] == chunk.keep.tolist() == [0, 3]
    np.testing.assert_allclose([found["scores"]["score"][i] for i in (0, 3)], wanted, atol=1e-6)
    assert sorted(found["order"]) == [0, 3]
    assert [(r["candidate"], r["field"], r["why"]) for r in found["rejects"]] == [
        (1, "item", "id outside 0..19"),
        (2, "price", "null or not finite"),
        (4, "price", "null or not finite"),
    ]


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"user": {**USER, "age": NAN}}, 422, "user.age: null or not finite"),
        ({"user": {**USER, "history": [1, 99]}}, 422, "user.history: id outside 0..19"),
        ({"user": {**USER, "history": 4}}, 400, "column 'history' is int64, but its sequence feature needs lists"),
        ({"user": {**USER, "history": [1, "x"]}}, 400, "user.history does not hold values of one type"),
        ({"user": {**USER, "age": 1 << 70}}, 400, "user.age does not hold values of one type"),
        ({"user": {**USER, "age": {"a": 1}}}, 400, "column 'age' is struct"),
        ({"user": {"history": []}}, 400, "user lacks the field 'age'; a value that is not known is null"),
        ({"user": {**USER, "agee": 1}}, 400, "did you mean 'age'?"),
        ({"user": [1]}, 400, "user is a JSON array, expected an object"),
        ({"candidates": []}, 400, "candidates is empty"),
        ({"candidates": {}}, 400, "candidates is empty"),
        ({"candidates": {"item": []}}, 400, "candidates is empty"),
        ({"candidates": [{"item": 1, "price": 1}, {"item": 1}]}, 400, "differ in the field 'price'"),
        ({"candidates": [1]}, 400, "candidates[0] is not an object"),
        ({"candidates": {**ITEMS, "price": [1]}}, 400, "candidates differ in their number of values"),
        ({"candidates": {**ITEMS, "price": 1}}, 400, "candidates.price is not an array"),
        ({"candidates": {**ITEMS, "item": ["a"] * 5}}, 400, "column 'item' is string"),
        (
            {"candidates": {**ITEMS, "item": [50] * 5}},
            422,
            "no candidate can be scored; candidates.item[0]: id outside",
        ),
        ({"candidates": {"item": [1] * 10_000, "price": [1] * 10_000}}, 413, "10,000 candidates in one request"),
        ({"k": 0}, 400, "k is 0"),
        ({"k": True}, 400, "k is a JSON boolean, expected a whole number"),
        ({"by": "pair"}, 400, "by is 'pair'; candidates can be ordered by score"),
        ({"where": {}}, 400, "unknown field 'where'"),
        ({"candidate": 1}, 400, "did you mean 'candidates'?"),
    ],
)
def test_what_is_wrong_is_named(app, changes, status, reason):
    body = json.dumps({"user": USER, "candidates": ITEMS, **changes})
    answer = ask(app, "POST", "/v1/rank", content=body)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["error"]


def test_what_is_not_served_is_said(app):
    for path, body in (("retrieve", {"vector": [1]}), ("items", {"ids": [1], "vectors": [[1]]})):
        answer = ask(app, "POST", f"/v1/{path}", json=body)
        assert answer.status_code == 404 and "start the server with --index" in answer.json()["error"]
