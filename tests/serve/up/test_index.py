"""Searches, and updates of a live index."""

import asyncio
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from data.errors import UserError
from serve.artifact import load
from serve.index.attributes import Attributes
from serve.index.build import build, build_live
from serve.index.open import open_index
from serve.up.config import Up
from serve.up.house import House
from tests.serve.up.conftest import ask, client_of, export, serving

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"i{n}" for n in range(40)]
PRICED = Attributes.of_table(pa.table({"price": [float(n) for n in range(40)]}))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "index"
    build(VECTORS, ids=IDS, model="m1", attributes=PRICED).save(folder)
    return folder


@pytest.fixture(scope="module")
def app(fixed):
    with serving(fixed) as app:
        yield app


@pytest.fixture
def folder(tmp_path):
    with build_live(VECTORS, ids=IDS, model="m1", attributes=PRICED, merge_by_itself=False) as live:
        live.save(tmp_path / "live")
    return tmp_path / "live"


@pytest.fixture
def live(folder):
    with serving(folder) as app:
        yield app


def post(app, path, body, **options):
    return ask(app, "POST", path, json=body, **options)


def nearest(query, *, k, among=range(40)):
    among = np.array(among)
    return [IDS[i] for i in among[np.argsort(-(VECTORS[among] @ query), kind="stable")][:k]]


def test_finds_the_nearest_for_every_k(app):
    queries = RNG.normal(size=(3, 4)).astype(np.float32)
    for k in (1, 3, 17):
        found = post(app, "/v1/retrieve", {"vectors": queries.tolist(), "k": k}).json()
        assert found["ids"] == [nearest(q, k=k) for q in queries]
        wanted = [sorted((VECTORS @ q).tolist(), reverse=True)[:k] for q in queries]
        np.testing.assert_allclose(found["scores"], wanted, rtol=1e-5)
    one = post(app, "/v1/retrieve", {"vector": queries[0].tolist()}).json()
    assert one["ids"] == [nearest(queries[0], k=10)] and one["versions"] == {"index": "m1"}


def test_fewer_than_k_are_answered_as_they_are(app):
    body = {"vector": [1, 0, 0, 0], "k": 30, "where": {"price": {"min": 5, "max": 9}}}
    found = post(app, "/v1/retrieve", body).json()
    assert found["ids"] == [nearest(np.array([1, 0, 0, 0]), k=30, among=range(5, 10))]
    assert len(found["scores"][0]) == 5


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"vector": [1, 2, 3]}, 400, "vector has shape [1, 3], the index takes rows of 4 numbers"),
        ({"vectors": [[1, 2, 3, 4], [1]]}, 400, "vectors: not all vectors have 4 numbers"),
        ({"vector": [1, 2, 3, 1e300]}, 400, "vector[0] holds NaN or infinity"),
        ({"vector": ["a"] * 4}, 400, "vector has shape"),
        ({"vector": [1, 2, 3, 4], "k": 1001}, 400, "k is 1001; choose it from 1 to 1000"),
        ({"vector": [1, 2, 3, 4], "k": 0}, 400, "k is 0"),
        ({"vector": [1, 2, 3, 4], "where": {"colour": "red"}}, 400, "colour"),
        ({"vector": [1, 2, 3, 4], "where": {"price": {"from": 1}}}, 400, "price"),
        ({"vector": [1, 2, 3, 4], "vectors": []}, 400, "give one of vector, vectors and user; vector and vectors came"),
        ({}, 400, "none came"),
        ({"vectors": []}, 400, "vectors has shape [0]"),
        ({"vectors": [[0, 0, 0, 0]] * 5000}, 413, "5,000 vectors in one request"),
        ({"user": {"age": 1}}, 409, "start with --queries"),
    ],
)
def test_what_is_wrong_is_named(app, body, status, reason):
    answer = post(app, "/v1/retrieve", body)
    assert answer.status_code == status and reason in answer.json()["error"], answer.text


def test_a_fixed_index_takes_no_updates_and_there_is_no_model(app):
    for path, body in (("/v1/items", {"ids": ["a"], "vectors": [[1, 2, 3, 4]]}), ("/v1/items/delete", {"ids": ["a"]})):
        answer = post(app, path, body)
        assert answer.status_code == 409 and "--engine live" in answer.json()["error"]
    answer = post(app, "/v1/rank", {"user": {}, "candidates": [{}]})
    assert answer.status_code == 404 and "start the server with an artefact" in answer.json()["error"]


def test_items_come_and_go_at_once_and_survive_a_restart(live, folder):
    far = [9.0, 9, 9, 9]
    body = {"ids": ["new", "i0"], "vectors": [far, far], "attributes": {"price": [1.5, 2.5]}}
    done = post(live, "/v1/items", body)
    assert done.json() == {"added": 1, "replaced": 1, "items": 41}, done.text
    assert set(post(live, "/v1/retrieve", {"vector": far, "k": 2}).json()["ids"][0]) == {"new", "i0"}
    cheap = {"vector": far, "k": 2, "where": {"price": {"max": 2}}}
    assert post(live, "/v1/retrieve", cheap).json()["ids"][0][0] == "new"
    assert post(live, "/v1/items/delete", {"ids": ["new", "nobody"]}).json() == {
        "deleted": 1,
        "unknown": 1,
        "items": 40,
    }
    assert post(live, "/v1/retrieve", {"vector": far, "k": 1}).json()["ids"] == [["i0"]]
    assert "adloom_index_items 40.0" in ask(live, "GET", "/metrics").text
    live.state.house.close()
    again = open_index(folder)
    assert len(again) == 40 and again.search(np.array([far]), k=1)[0].tolist() == [["i0"]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"ids": ["a"], "vectors": [[1, 2, 3]]}, "vectors has shape [1, 3], the index takes rows of 4 numbers"),
        ({"ids": ["a"], "vectors": [[1, 2, 3, float("nan")]]}, "vectors[0] holds NaN or infinity"),
        ({"ids": ["a", "a"], "vectors": [[1, 2, 3, 4]] * 2}, "stands twice"),
        ({"ids": ["a", 1], "vectors": [[1, 2, 3, 4]] * 2}, "ids are whole numbers or strings, all of one kind"),
        ({"ids": [1], "vectors": [[1, 2, 3, 4]]}, "ids of this index are strings, not integers"),
        ({"ids": [True], "vectors": [[1, 2, 3, 4]]}, "all of one kind"),
        ({"ids": [1 << 70], "vectors": [[1, 2, 3, 4]]}, "does not fit into 64 bits"),
        ({"ids": ["a", "b"], "vectors": [[1, 2, 3, 4]]}, "an id each"),
        ({"ids": ["a"], "vectors": [[1, 2, 3, 4]], "attributes": {"price": ["x"]}}, "price"),
        ({"ids": [], "vectors": []}, "at least one"),
        ({"vectors": []}, "lacks the field 'ids'"),
    ],
)
def test_a_wrong_update_changes_nothing(live, body, reason):
    answer = ask(live, "POST", "/v1/items", content=json.dumps(body))
    assert answer.status_code == 400 and reason in answer.json()["error"], answer.text
    assert len(live.state.house.serving.index) == 40


def test_another_process_s_lock_is_respected_and_reading_is_not_locked_out(live, folder):
    with pytest.raises(UserError, match=r"lock|another process|written"):
        House(Up(path=folder, watch_seconds=0))
    with serving(folder, read_only=True) as reader:
        assert post(reader, "/v1/retrieve", {"vector": [1, 0, 0, 0]}).status_code == 200
        answer = post(reader, "/v1/items/delete", {"ids": ["i1"]})
        assert answer.status_code == 409 and "start it without --read-only" in answer.json()["error"]


def test_an_index_is_replaced_while_it_is_searched_and_changed(folder, tmp_path):
    with build_live(VECTORS + 1, ids=IDS, model="m2", merge_by_itself=False) as other:
        other.save(tmp_path / "other")

    async def run(app):
        async with client_of(app, headers={"Authorization": "Bearer t"}) as client:
            stop, answers = asyncio.Event(), []

            async def go_on(path, body):
                while not stop.is_set():
                    answers.append(await client.post(path, json=body))

            tasks = [
                asyncio.create_task(go_on("/v1/retrieve", {"vector": [1, 2, 3, 4]})),
                asyncio.create_task(go_on("/v1/items", {"ids": ["n"], "vectors": [[1, 2, 3, 4]]})),
            ]
            await asyncio.sleep(0.1)
            folder.rename(tmp_path / "old")
            (tmp_path / "other").rename(folder)
            done = (await client.post("/v1/reload")).json()
            await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*tasks)
            return done, answers

    with serving(folder, token="t") as app:
        done, answers = asyncio.run(run(app))
        assert app.state.house.serving.index.model == "m2" and len(app.state.house.serving.index) == 41
    assert done == {"swapped": True, "versions": {"index": "m2"}}
    assert {a.status_code for a in answers} == {200}
    with open_index(tmp_path / "old", write=True):  # the server has let it go
        pass


def user_tower(weights, batch):
    """The user's side of two towers in one line."""
    return {
        "vector": weights["table"][batch["history"]].mean(1) + batch["age"][:, None] + batch["history/length"][:, None]
    }


@pytest.mark.parametrize("seen", ["fixed", "live"])
def test_searches_for_a_raw_user(fixed, folder, tmp_path, seen):
    index = {"fixed": fixed, "live": folder}[seen]
    path = export(tmp_path / "queries", function=user_tower, request=False, vectors={"model": "m1"})
    with serving(index, queries=tmp_path / "queries") as app:
        user = {"history": [3, 4], "age": 0.5}
        found = post(app, "/v1/retrieve", {"user": user, "k": 4})
        rows = {"history": np.array([[3, 4, 0]]), "history/length": np.array([2]), "age": np.array([0.5], np.float32)}
        query = load(path)(rows)["vector"][0]
        assert found.json()["ids"] == [nearest(query, k=4)], found.text
        assert found.json()["versions"] == {"index": "m1", "queries": path.name}
        answer = post(app, "/v1/retrieve", {"user": {**user, "age": None}})
        assert answer.status_code == 422 and answer.json()["field"] == "user.age"


def test_queries_of_another_model_are_refused(fixed, folder, tmp_path):
    export(tmp_path / "other", function=user_tower, request=False, vectors={"model": "m2"})
    export(tmp_path / "none", function=user_tower, request=False)
    for index in (fixed, folder):
        with pytest.raises(UserError, match=r"the index holds vectors of model 'm1', .* gives queries of 'm2'"):
            House(Up(path=index, queries=tmp_path / "other"))
        with pytest.raises(UserError, match=r"export W --vectors query"):
            House(Up(path=index, queries=tmp_path / "none"))
    with open_index(folder, write=True):  # its lock was let go
        pass


def test_an_index_cut_short_is_refused(fixed, tmp_path):
    shutil.copytree(fixed, tmp_path / "index")
    (next((tmp_path / "index").glob("*/vectors.npy"))).unlink()
    with pytest.raises(UserError, match=r"vectors\.npy is missing"):
        House(Up(path=tmp_path / "index"))
