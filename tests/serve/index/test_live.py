import logging
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from serve.index import live as module
from serve.index.apart import make_apart
from serve.index.attributes import Attributes
from serve.index.build import build_live
from serve.index.exact import Exact
from serve.index.live import Deleted, LiveIndex, Upserted
from serve.index.open import open_index
from serve.index.plan import Made, Plan
from serve.index.scann_engine import Settings, train
from serve.index.where import Where
from tests.serve.index.model import DIM, Items, assert_agree

SHOPS = ("a", "b", None)
FILTERS = [
    (None, lambda a: True),
    (Where.parse({"shop": ["a"]}), lambda a: a["shop"] == "a"),
    (Where.parse({"price": {"max": 3}}), lambda a: a["price"] is not None and a["price"] <= 3),
    (
        Where.parse({"shop": ["a", "b"], "price": {"min": 2}}),
        lambda a: a["shop"] is not None and a["price"] is not None and a["price"] >= 2,
    ),
]
NAMES = {"integers": list(range(40)), "strings": [f"sku-{'x' * (i % 7)}{i}" for i in range(40)]}

steps = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.integers(0, 39), min_size=1, max_size=8, unique=True), st.booleans()),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 39), max_size=12)),
        st.tuples(st.just("merge")),
        st.tuples(st.just("snapshot")),
        st.tuples(st.just("restart")),
    ),
    max_size=14,
)


class Everything(Plan):
    """ScaNN that looks into every leaf and scores every row: its machinery, with a known answer."""

    def make(self, vectors, *, threads=None):
        if len(vectors) < 16:
            return Plan().make(vectors)
        rows = len(vectors)
        scann = train(vectors, settings=Settings(leaves=4, searched=4, reorder=rows, soar=None), threads=1)
        return Made(scann, {"engine": "scann", "settings": scann.about(), "recall": {"at": {}}, "why": "a test"})


def started(names, rng, *, plan=None):
    """An index of the first 20 names, and what it holds."""
    items, ids = Items(), names[:20]
    vectors = rng.normal(size=(20, DIM)).astype(np.float32)
    values = {"shop": [SHOPS[i % 3] for i in range(20)], "price": [None if i % 5 == 0 else i % 7 for i in range(20)]}
    items.upsert(ids, vectors, values)
    plan = plan or Plan()
    attributes = Attributes.of_values(values, kinds={"shop": "text", "price": "integer"})
    index = LiveIndex(
        plan.make(vectors), ids=np.array(ids), attributes=attributes, plan=plan, metric="dot", model="m1",
        merge_by_itself=False,
    )  # fmt: skip
    return index, items


def assert_plays_agree(plays, *, names, seed, folder, plan=None):
    """Does all steps to an index and to the dictionary; they assert_agree after each."""
    rng = np.random.default_rng(seed)
    index, items = started(names, rng, plan=plan)
    index.snapshot(folder)
    index = open_index(folder, model="m1", write=True, merge_by_itself=False)
    index.plan = plan or index.plan
    for kind, *rest in plays:
        if kind == "upsert":
            ids = [names[i] for i in rest[0]]
            vectors = rng.normal(size=(len(ids), DIM)).astype(np.float32)
            values = None
            if rest[1]:
                values = {"shop": [SHOPS[i] for i in rng.integers(0, 3, len(ids))]}
            index.upsert(ids, vectors, attributes=values)
            items.upsert(ids, vectors, values)
        elif kind == "delete":
            ids = [names[i] for i in rest[0]]
            done = index.delete(ids)
            assert done.deleted == len({i for i in ids if i in items.vectors})
            assert done.deleted + done.unknown == len(set(ids))
            items.delete(ids)
        elif kind == "merge":
            index.merge()
            assert index.stats()["new"] == index.stats()["dead"] == 0
        elif kind == "snapshot":
            index.snapshot()
        else:
            index.close()  # the log has what came since the snapshot
            index = open_index(folder, write=True, merge_by_itself=False)
            index.plan = plan or index.plan
        where, accepts = FILTERS[rng.integers(len(FILTERS))]
        queries = rng.normal(size=(2, DIM)).astype(np.float32)
        assert_agree(index, items, queries, k=int(rng.integers(1, 45)), where=where, accepts=accepts)
    index.close()
    return index


@settings(max_examples=40, deadline=None)
@given(plays=steps, kind=st.sampled_from(sorted(NAMES)), seed=st.integers(0, 2**32))
def test_any_order_of_updates_agrees_with_a_dictionary(tmp_path_factory, plays, kind, seed):
    assert_plays_agree(plays, names=NAMES[kind], seed=seed, folder=tmp_path_factory.mktemp("live") / "index")


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_so_it_does_with_scann_behind(tmp_path, rng, monkeypatch, kind):
    monkeypatch.setattr("serve.index.scann_engine.FEW", 3)
    plays = []
    for _ in range(12):
        plays += [
            ("upsert", rng.permutation(40)[:6].tolist(), True),
            ("delete", rng.permutation(40)[:5].tolist()),
            (str(rng.choice(["merge", "snapshot", "restart", "merge"])),),
        ]
    index = assert_plays_agree(plays, names=NAMES[kind], seed=7, folder=tmp_path / "index", plan=Everything())
    assert index.made["engine"] == "scann"


def test_a_large_merge_is_made_by_another_process_and_written_without_this_one(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("serve.index.apart.FROM", 4_000)
    names = [f"i{n}" for n in range(6_000)]
    vectors = rng.normal(size=(6_000, DIM)).astype(np.float32)
    how = {"recall": 0.9, "metric": "cosine", "model": "m1", "threads": 1, "queries": vectors[:300]}
    build_live(vectors, ids=names, **how).save(tmp_path / "index")
    with open_index(tmp_path / "index", model="m1", write=True, merge_by_itself=False) as index:
        monkeypatch.setattr(module.Plan, "make", None)  # this process builds nothing
        new = rng.normal(size=(500, DIM)).astype(np.float32)
        index.upsert(names[:500], new)
        index.delete(names[500:600])
        before = index.made["recall"]
        index.merge()
        assert index.stats()["base"] == len(index) == 5_900 and index.made["engine"] == "scann"
        assert index.made["recall"] != before and index.made["recall"]["at"]["10"] >= 0.85
        assert index.made["recall"]["from"] == before["from"] == "given"
        found, _ = index.search(new[:50], k=1)
        assert (found[:, 0] == names[:50]).mean() > 0.9
        first = index.snapshot()
    assert not list((tmp_path / "index").glob(".staged-*"))
    with open_index(tmp_path / "index", model="m1") as again:
        assert len(again) == 5_900
        np.testing.assert_array_equal(again.search(new[:50], k=5)[0], index.search(new[:50], k=5)[0])
    assert (first / "scann" / "dataset.npy").stat().st_nlink == 2  # of the version that the merge left


def test_what_another_process_finds_is_best_compared_exactly_is_so_here(tmp_path, rng):
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    made = make_apart(Plan(engine="scann"), vectors, work=tmp_path)
    assert isinstance(made.engine, Exact) and made.engine.vectors is vectors
    assert made.about["engine"] == "exact" and "50 vectors: fewer than" in made.about["why"]


def test_a_process_that_cannot_build_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 1: .*recall lies in"):
        make_apart(Plan(engine="scann", recall=2.0), np.ones((5_000, 4), np.float32), work=tmp_path)


class Held(Plan):
    """A merge that waits until it is let go on."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "begun", threading.Event())
        object.__setattr__(self, "go", threading.Event())

    def make(self, vectors, *, threads=None):
        if threads is not None:  # of a merge
            self.begun.set()
            assert self.go.wait(30)
        return super().make(vectors, threads=threads)


def test_updates_and_searches_go_on_during_a_merge_and_none_is_lost(rng, monkeypatch):
    monkeypatch.setattr(module, "MERGE_FROM", 6)
    plan = Held()
    index, items = started(NAMES["integers"], rng, plan=plan)
    index._by_itself = True
    queries = rng.normal(size=(3, DIM)).astype(np.float32)

    def upsert(ids):
        vectors = rng.normal(size=(len(ids), DIM)).astype(np.float32)
        index.upsert(ids, vectors)
        items.upsert(ids, vectors)

    upsert([3, 25, 26])
    assert not index.stats()["merging"]
    upsert([4, 27])
    assert plan.begun.wait(30)
    upsert([5, 25, 30])  # one of the base, one of the delta that is being merged, one new
    index.delete([6, 26, 30, 99])
    items.delete([6, 26, 30, 99])
    upsert([6, 31])  # one that was just deleted
    assert_agree(index, items, queries, k=40)
    assert index.stats()["merging"] and index.merges == 0
    monkeypatch.setattr(module, "MERGE_FROM", 100)
    plan.go.set()
    index.wait()
    assert index.merges == 1 and index.merge_error is None
    assert index.stats()["base"] == 23 and index.stats()["new"] == 4
    assert_agree(index, items, queries, k=40)
    index.merge()
    assert_agree(index, items, queries, k=40)


def test_what_came_during_a_merge_is_merged_next(rng, monkeypatch):
    monkeypatch.setattr(module, "MERGE_FROM", 6)
    plan = Held()
    index, items = started(NAMES["integers"], rng, plan=plan)
    index._by_itself = True
    for ids in (range(25, 31), range(31, 37)):
        vectors = rng.normal(size=(6, DIM)).astype(np.float32)
        index.upsert(ids, vectors)
        items.upsert(ids, vectors)
        assert plan.begun.wait(30)
    plan.go.set()
    index.wait()
    assert index.merges == 2 and index.stats()["new"] == 0
    assert_agree(index, items, rng.normal(size=(2, DIM)).astype(np.float32), k=40)


def test_a_merge_that_fails_is_told_and_tried_again_later(rng, monkeypatch, caplog):
    monkeypatch.setattr(module, "MERGE_FROM", 4)
    index, items = started(NAMES["integers"], rng)
    index._by_itself = True
    plan = index.plan

    class Broken(Plan):
        def make(self, vectors, *, threads=None):
            raise MemoryError("no room")

    index.plan = Broken()

    def upsert(ids):
        vectors = rng.normal(size=(len(ids), DIM)).astype(np.float32)
        index.upsert(ids, vectors)
        items.upsert(ids, vectors)
        index.wait()

    with caplog.at_level(logging.ERROR, logger="adloom.serve"):
        upsert([1, 2, 30])
    assert index.stats()["merge_error"] == "MemoryError: no room"
    assert "the merge of the index failed" in caplog.text
    index.plan = plan
    upsert([31])
    assert index.merges == 0  # not with every update
    upsert(range(32, 40))
    assert index.merges == 1 and index.stats()["merge_error"] is None
    assert_agree(index, items, rng.normal(size=(2, DIM)).astype(np.float32), k=40)


def test_a_search_sees_all_of_an_update_or_nothing_of_it(monkeypatch):
    monkeypatch.setattr(module, "MERGE_FROM", 100)
    ids = np.arange(30)
    index = build_live(np.ones((30, 2), np.float32), ids=ids, engine="exact")
    wrong, done, counts = [], threading.Event(), [0, 0]

    def search(place):
        while not done.is_set():
            found, scores = index.search(np.array([[1, 0]], np.float32), k=31)
            counts[place] += 1
            if len(set(scores[0, :30].tolist())) != 1 or scores[0, 30] > -np.inf or set(found[0, :30]) != set(ids):
                wrong.append((found, scores))
                return

    threads = [threading.Thread(target=search, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    version = 1
    while not wrong and version < 5000 and (index.merges < 3 or min(counts) < 100):
        version += 1
        index.upsert(ids, np.full((30, 2), version, np.float32))
    done.set()
    for thread in threads:
        thread.join()
    index.close()
    assert not wrong
    assert index.merges >= 3 and min(counts) >= 100
    assert index.search(np.array([[1, 0]], np.float32), k=1)[1].tolist() == [[version]]


def test_attributes_that_are_not_given_stay(rng):
    index, _ = started(NAMES["integers"], rng)
    query, shop_b = np.ones((1, DIM), np.float32), Where.parse({"shop": "b"})
    index.upsert([1], 100 * query)
    assert index.search(query, k=1, where=shop_b)[0].tolist() == [[1]]
    index.upsert([1], 100 * query, attributes={"shop": ["c"]})
    assert index.search(query, k=1, where=Where.parse({"shop": "c", "price": 1}))[0].tolist() == [[1]]
    index.upsert([1], 100 * query, attributes={"shop": [None]})
    assert 1 not in index.search(query, k=40, where=shop_b)[0]
    index.upsert([39], 200 * query)
    assert index.search(query, k=1)[0].tolist() == [[39]]
    assert 39 not in index.search(query, k=40, where=Where.parse({"price": {"min": -9, "max": 9}}))[0]


def test_add_refuses_what_is_there_and_changes_nothing(rng):
    index, items = started(NAMES["strings"], rng)
    new = rng.normal(size=(2, DIM)).astype(np.float32)
    with pytest.raises(UserError, match="'sku-xx2' is in the index, and 0 more; upsert"):
        index.add(["new", NAMES["strings"][2]], new)
    assert_agree(index, items, new, k=25)
    assert "new" not in index and NAMES["strings"][2] in index
    assert index.add(["new"], new[:1]) == Upserted(added=1, replaced=0)
    assert index.upsert(["new", "newer"], new) == Upserted(added=1, replaced=1)
    assert index.delete(["new", "nobody", "new"]) == Deleted(deleted=1, unknown=1)


def test_an_index_may_lose_all_its_items_and_get_new_ones(rng):
    index, items = started(NAMES["integers"], rng)
    query = rng.normal(size=(1, DIM)).astype(np.float32)
    index.delete(range(20))
    items.delete(range(20))
    for _ in range(2):
        assert_agree(index, items, query, k=3)
        assert_agree(index, items, query, k=3, where=FILTERS[1][0], accepts=FILTERS[1][1])
        index.merge()
    index.upsert([7], query)
    items.upsert([7], query)
    assert_agree(index, items, query, k=3)


def test_wrong_updates_are_named_and_change_nothing(rng):
    index, items = started(NAMES["integers"], rng)
    one = np.ones((1, DIM), np.float32)
    with pytest.raises(UserError, match="id 3 stands twice"):
        index.upsert([3, 3], np.ones((2, DIM)))
    with pytest.raises(UserError, match="vectors have 3 numbers, those of the index 4"):
        index.upsert([3], np.ones((1, 3)))
    with pytest.raises(UserError, match="vector of id 3 is not finite"):
        index.upsert([3], np.full((1, DIM), np.nan))
    with pytest.raises(UserError, match="ids of this index are integers, not strings"):
        index.upsert(["3"], one)
    with pytest.raises(UserError, match="ids of this index are integers, not strings"):
        index.delete(["3"])
    with pytest.raises(UserError, match=r"no attribute 'colour'; it has price, shop"):
        index.upsert([3], one, attributes={"colour": ["red"]})
    with pytest.raises(UserError, match=r"no attribute 'colour'"):
        index.search(one, k=1, where=Where.parse({"colour": "red"}))
    with pytest.raises(UserError, match="attribute 'price' holds integer; 'dear' is none"):
        index.upsert([3], one, attributes={"price": ["dear"]})
    with pytest.raises(UserError, match="attribute 'price' has 2 values for 1 items"):
        index.upsert([3], one, attributes={"price": [1, 2]})
    assert_agree(index, items, one, k=25)
    assert index.stats()["version"] == 0


def test_cosine_holds_for_what_comes_later(rng):
    vectors = rng.normal(size=(6, DIM)).astype(np.float32)
    index = build_live(vectors, ids=range(6), metric="cosine", engine="exact")
    index.upsert([9], 50 * vectors[2:3])
    found, scores = index.search(3 * vectors[2:3], k=2)
    assert sorted(found[0].tolist()) == [2, 9]
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    with pytest.raises(UserError, match="all zeros"):
        index.upsert([9], np.zeros((1, DIM)))
