import pickle

import numpy as np
import pytest

from data.errors import UserError
from serve.index.attributes import Attributes
from serve.index.base import Kept
from serve.index.build import build
from serve.index.exact import Exact
from serve.index.open import open_index
from serve.index.recall import Queries, measured, nearest, recalls
from serve.index.scann_engine import Scann, Settings
from serve.index.where import Where

ROWS, DIM = 3000, 16


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(60, DIM))
    return (centres[rng.integers(0, 60, ROWS)] + 0.6 * rng.normal(size=(ROWS, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def index(vectors):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.index.recall.FEWEST", 100)
        ids = [f"sku-{i}" for i in range(ROWS)]
        attributes = Attributes.of_values(
            {"rare": [i % 500 for i in range(ROWS)], "half": [i % 2 == 0 for i in range(ROWS)]},
            kinds={"rare": "integer", "half": "truth"},
        )
        return build(vectors, ids=ids, engine="scann", recall=0.9, attributes=attributes, model="m1", threads=1)


def test_settings_are_the_fastest_found_to_reach_the_recall(index, vectors):
    made = index.made
    assert made["engine"] == "scann" and isinstance(index.engine, Scann)
    assert made["settings"]["searched"] < made["settings"]["leaves"] // 2
    assert made["recall"]["queries"] == 500 and made["recall"]["target"] == 0.9
    # Measured again, on rows that chose nothing.
    asked = Queries.of_rows(vectors, count=400, seed=9)
    again = measured(index.engine, asked)["at"]
    assert again["10"] > 0.87 and again["100"] > 0.85
    assert abs(again["10"] - made["recall"]["at"]["10"]) < 0.04
    weaker = index.engine.with_settings(Settings(**{**made["settings"], "searched": 1, "reorder": 10}))
    assert measured(weaker, asked)["at"]["10"] < again["10"] - 0.05


def test_one_query_and_many_are_answered_alike(index, vectors, monkeypatch):
    # ScaNN itself may look into another leaf for one query than among many: here all are, and all rows are scored.
    settings = Settings(**{**index.made["settings"], "searched": index.made["settings"]["leaves"], "reorder": ROWS})
    thorough = index.engine.with_settings(settings)
    monkeypatch.setattr(index, "engine", thorough)
    monkeypatch.setattr(index, "_scann", thorough)
    together, scores = index.search(vectors[:20], k=7)
    for at in range(20):
        alone, theirs = index.search(vectors[at : at + 1], k=7)
        np.testing.assert_array_equal(alone[0], together[at])
        np.testing.assert_allclose(theirs[0], scores[at], rtol=1e-6)
    rows = np.char.replace(together, "sku-", "").astype(int)
    np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", vectors[rows], vectors[:20]), rtol=1e-4)


def test_one_query_goes_as_deep_unchecked_as_checked(index, vectors):
    for k in (10, 40, 40):
        rows, scores = index.engine.single(vectors[0], k=k)
        checked, theirs = index.engine.nearest(vectors[:1], k=k)
        np.testing.assert_array_equal(rows, checked[0])
        np.testing.assert_array_equal(scores, theirs[0])


def test_more_than_the_index_holds(index, vectors):
    for count in (1, 2):
        ids, scores = index.search(vectors[:count], k=ROWS + 5)
        assert ids.shape == (count, ROWS + 5)
        there = scores > -np.inf
        assert (ids[~there] == "").all() and not there[:, -5:].any()
        assert (np.sort(-scores, axis=1) == -scores).all()


@pytest.mark.parametrize("few", [0, 100])
def test_k_results_come_whenever_k_rows_meet_the_filter(index, vectors, monkeypatch, few):
    monkeypatch.setattr("serve.index.scann_engine.FEW", few)
    for wanted, count in (
        ({"rare": 3}, 6),
        ({"rare": [1, 2, 3, 4, 5, 6, 7, 8]}, 48),
        ({"half": True}, 1500),
        ({"rare": -1}, 0),
    ):
        where = Where.parse(wanted)
        ids, scores = index.search(vectors[:30], k=10, where=where)
        assert ((scores > -np.inf).sum(axis=1) == min(count, 10)).all()
        keep = Kept.of(index.attributes.mask(where))
        rows, best = Exact(vectors).nearest(vectors[:30], k=10, keep=keep)
        reached = recalls(np.where(rows >= 0, np.searchsorted(np.arange(ROWS), rows), -1), rows)
        found = np.array([[int(i.removeprefix("sku-")) if i else -1 for i in line] for line in ids])
        assert keep.mask[found[found >= 0]].all()
        if count:
            assert reached.min() == 1 and recalls(found, rows).mean() > 0.85
        if count <= max(few, 10):  # compared one by one
            np.testing.assert_allclose(scores, best, rtol=1e-4)


def test_what_is_written_holds_no_pickle_and_answers_alike(index, vectors, tmp_path, monkeypatch):
    version = index.save(tmp_path / "index")
    assert not list(version.rglob("*.pkl"))

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    (tmp_path / "moved").mkdir()
    (tmp_path / "index").rename(tmp_path / "moved" / "there")
    opened = open_index(tmp_path / "moved" / "there", model="m1")
    for wanted, got in zip(index.search(vectors[:50], k=10), opened.search(vectors[:50], k=10), strict=True):
        np.testing.assert_array_equal(wanted, got)
    assert opened.made == index.made
    where = Where.parse({"rare": 3})
    np.testing.assert_array_equal(
        index.search(vectors[:5], k=3, where=where)[0], opened.search(vectors[:5], k=3, where=where)[0]
    )


def test_exact_search_where_scann_does_not_pay(vectors, monkeypatch):
    few = build(vectors[:200], ids=range(200), engine="scann")
    assert isinstance(few.engine, Exact)
    assert few.made["engine"] == "exact" and few.made["why"].startswith("200 vectors: fewer than 4,096")
    monkeypatch.setattr("serve.index.recall.FEWEST", 100)
    monkeypatch.setattr("serve.index.recall.REORDERS", (10,))
    never = build(vectors[:1000], ids=range(1000), engine="scann", recall=1.0, threads=1)
    assert isinstance(never.engine, Exact)
    assert "no settings of ScaNN tried reach a recall of 1.0" in never.made["why"]


def test_a_query_that_is_a_row_does_not_find_itself(vectors):
    queries = Queries.of_rows(vectors, count=50)
    rows = nearest(Exact(vectors), queries, k=10)
    assert (rows != queries.own[:, None]).all()
    given = nearest(Exact(vectors), Queries.given(vectors[queries.own]), k=11)
    np.testing.assert_array_equal(
        rows, [[r for r in line if r != own][:10] for line, own in zip(given, queries.own, strict=True)]
    )


def test_recall_counts_true_rows_once():
    found, truth = np.array([[1, 2, 2, -1], [5, 6, 7, 8]]), np.array([[2, 3, 1, 9], [5, -1, -1, -1]])
    assert recalls(found, truth).tolist() == [0.5, 1.0]


def test_queries_that_cannot_be_asked_are_named(index, vectors):
    for count in (1, 2):
        with pytest.raises(UserError, match="query 0 is not finite"):
            index.search(np.full((count, DIM), np.nan), k=3)
    with pytest.raises(UserError, match=r"held-out queries are \[n, 16\] with n from 2, not \(5, 3\)"):
        build(vectors, ids=range(ROWS), engine="scann", queries=np.ones((5, 3)))
    with pytest.raises(UserError, match="held-out queries are not all finite"):
        build(vectors, ids=range(ROWS), engine="scann", queries=np.full((5, DIM), np.inf))
