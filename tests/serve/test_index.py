import numpy as np
import pytest

from data.errors import UserError
from serve import index as module
from serve.index import build, load


def brute(vectors, queries, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@pytest.mark.parametrize("block", [64, 1 << 16])
def test_finds_what_comparing_all_finds(rng, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    vectors, queries = rng.normal(size=(1000, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    ids = rng.permutation(5000)[:1000]
    got, scores = build(vectors, ids=ids).search(queries, k=70)
    order, wanted = brute(vectors, queries, 70)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    np.testing.assert_array_equal(got, ids[order])


def test_ties_go_to_the_earlier_vector(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    ids, _ = build(np.ones((10, 2)), ids=[f"i{i}" for i in range(10)]).search(np.ones((1, 2)), k=6)
    assert ids.tolist() == [["i0", "i1", "i2", "i3", "i4", "i5"]]


@pytest.mark.parametrize("block", [4, 1 << 16])
def test_padding_is_never_found_where_all_scores_are_negative(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    ids, scores = build(-np.ones((10, 2)), ids=range(10)).search(np.ones((3, 2)), k=10)
    assert ids.tolist() == [list(range(10))] * 3
    assert (scores == -2).all()


def test_cosine_ignores_length(rng):
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors[7] = vectors[3] * 10
    ids, scores = build(vectors, ids=range(50), metric="cosine").search(vectors[3:4] * 5, k=2)
    assert sorted(ids[0].tolist()) == [3, 7]
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_a_saved_index_answers_alike_and_knows_its_model(rng, tmp_path):
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    first = build(vectors, ids=range(30), model="v1")
    first.save(tmp_path / "index")
    build(vectors, ids=range(30), model="v1").save(tmp_path / "index")
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    got = load(tmp_path / "index", model="v1").search(vectors, k=3)
    np.testing.assert_array_equal(got[0], first.search(vectors, k=3)[0])
    with pytest.raises(UserError, match="of model 'v1', not of 'v2'"):
        load(tmp_path / "index", model="v2")
    raw = bytearray((tmp_path / "index" / "vectors.npy").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "index" / "vectors.npy").write_bytes(raw)
    with pytest.raises(UserError, match=r"vectors\.npy is damaged"):
        load(tmp_path / "index")


def test_what_cannot_be_indexed_is_named():
    with pytest.raises(UserError, match="id 3 stands twice"):
        build(np.ones((2, 2)), ids=[3, 3])
    with pytest.raises(UserError, match="vector of id 8 is not finite"):
        build(np.array([[1.0, 1.0], [np.nan, 1.0]]), ids=[7, 8])
    with pytest.raises(UserError, match="choose k from 1 to 2"):
        build(np.ones((2, 2)), ids=[1, 2]).search(np.ones((1, 2)), k=3)
    with pytest.raises(UserError, match=r"queries have shape \(1, 3\), the index holds vectors of 2"):
        build(np.ones((2, 2)), ids=[1, 2]).search(np.ones((1, 3)), k=1)
