import jax
import numpy as np
import pytest

from data.errors import UserError
from serve.index import base, exact
from serve.index.base import Kept
from serve.index.build import build
from serve.index.devices import OnDevices
from serve.index.exact import Exact
from serve.index.open import open_index


def brute(vectors, queries, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@pytest.fixture(params=["host", "blocks", "devices", "approximate"])
def engine(request, monkeypatch):
    """Every way to compare all vectors; on CPUs an approximate maximum is the maximum."""
    monkeypatch.setattr(exact, "FEW", 1 << 20 if request.param == "host" else 0)
    monkeypatch.setattr(exact, "BLOCK", 64)
    monkeypatch.setattr(base, "BLOCK", 64)
    if request.param in ("host", "blocks"):
        return Exact
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    return lambda vectors: OnDevices(vectors, mesh=mesh, recall=1.0 if request.param == "devices" else 0.95)


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("k", [1, 70])
def test_finds_what_comparing_all_finds(rng, engine, k, share):
    vectors, queries = rng.normal(size=(1001, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    kept = np.sort(rng.permutation(1001)[: int(1001 * share)])
    mask = np.isin(np.arange(1001), kept)
    rows, scores = engine(vectors).nearest(queries, k=k, keep=Kept.of(mask))
    order, wanted = brute(vectors[kept], queries, k)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(rows, kept[order])


def test_ties_go_to_the_earlier_vector(engine):
    rows, _ = engine(np.ones((200, 2), np.float32)).nearest(np.ones((2, 2), np.float32), k=6)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_where_there_is_no_kth_the_score_says_so(engine):
    vectors, query = -np.ones((10, 2), np.float32), np.ones((3, 2), np.float32)
    rows, scores = engine(vectors).nearest(query, k=12, keep=Kept.of(np.arange(10) % 2 == 0))
    assert rows.tolist() == [[0, 2, 4, 6, 8, *[-1] * 7]] * 3
    assert scores.tolist() == [[*[-2.0] * 5, *[-np.inf] * 7]] * 3
    rows, scores = engine(np.zeros((0, 2), np.float32)).nearest(query, k=2)
    assert (rows == -1).all() and (scores == -np.inf).all() and rows.shape == (3, 2)


def test_many_queries_go_to_the_devices_in_turns(rng, monkeypatch):
    monkeypatch.setattr("serve.index.devices.SCORES", 200)
    vectors, queries = rng.normal(size=(100, 4)).astype(np.float32), rng.normal(size=(21, 4)).astype(np.float32)
    rows, _ = OnDevices(vectors).nearest(queries, k=3)
    np.testing.assert_array_equal(rows, brute(vectors, queries, 3)[0])


def test_cosine_ignores_length(rng):
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors[7] = vectors[3] * 10
    ids, scores = build(vectors, ids=range(50), metric="cosine").search(vectors[3:4] * 5, k=2)
    assert sorted(ids[0].tolist()) == [3, 7]
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_a_saved_index_answers_alike_on_one_device_and_on_four(rng, tmp_path):
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    first = build(vectors, ids=[f"i{i}" for i in range(30)], model="v1")
    first.save(tmp_path / "index")
    wanted, scores = first.search(vectors, k=3)
    for mesh in (None, jax.make_mesh((4,), ("rows",))):
        opened = open_index(tmp_path / "index", model="v1", mesh=mesh)
        assert isinstance(opened.engine, Exact if mesh is None else OnDevices)
        got, theirs = opened.search(vectors, k=3)
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_allclose(theirs, scores, rtol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_more_than_there_are_is_less(rng):
    for ids, nothing in (([4, 5], -1), (["a", "b"], "")):
        found, scores = build(np.eye(2), ids=ids).search(np.ones((1, 2)), k=3)
        assert found.tolist() == [[*ids, nothing]]
        assert scores.tolist() == [[1, 1, -np.inf]]


def test_what_cannot_be_indexed_is_named():
    with pytest.raises(UserError, match="id 3 stands twice"):
        build(np.ones((2, 2)), ids=[3, 3])
    with pytest.raises(UserError, match="vector of id 8 is not finite"):
        build(np.array([[1.0, 1.0], [np.nan, 1.0]]), ids=[7, 8])
    with pytest.raises(UserError, match="no vectors to index"):
        build(np.ones((0, 2)), ids=[])
    with pytest.raises(UserError, match="ids of an index are integers or strings"):
        build(np.ones((2, 2)), ids=[0.5, 1.5])
    with pytest.raises(UserError, match="does not fit into 64 bits"):
        build(np.ones((1, 2)), ids=np.array([2**64 - 1], np.uint64))
    index = build(np.ones((2, 2)), ids=[1, 2])
    with pytest.raises(UserError, match="choose k from 1"):
        index.search(np.ones((1, 2)), k=0)
    with pytest.raises(UserError, match=r"queries have shape \(1, 3\), the index holds vectors of 2"):
        index.search(np.ones((1, 3)), k=1)
    with pytest.raises(UserError, match="query 1 is not finite, and 0 more"):
        index.search(np.array([[1.0, 1.0], [np.inf, 1.0]]), k=1)
    with pytest.raises(UserError, match="has no direction"):
        build(np.zeros((1, 2)), ids=[1], metric="cosine")
