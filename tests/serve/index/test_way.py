"""Lists by an index: those of the exact search where the index is exact, never what is not to be shown."""

import chz
import numpy as np
import pytest

from serve.index.live import LiveIndex
from serve.index.way import ByIndex
from tests.train.test_retrieve_lists import OF_LISTS, OPTIONS, Shop, predict
from train.retrieve_lists import Nearest, RetrieveLists

RNG = np.random.default_rng(0)
MANY, FEW = RNG.normal(size=(5000, 8)).astype(np.float32), RNG.normal(size=(60, 8)).astype(np.float32)
QUERIES = RNG.normal(size=(40, 8))
OWN = np.where(RNG.random((40, 6)) < 0.3, -1, RNG.integers(0, 60, (40, 6)))


@pytest.mark.parametrize("engine", ["exact", "scann", "live"])
@pytest.mark.parametrize("own", [None, OWN])
def test_a_small_catalogue_gives_the_exact_lists(engine, own):
    """ScaNN compares all of so few; of the live index a fifth of the rows are dead and stand anew beside it."""
    found = ByIndex(engine=engine).open(FEW)(QUERIES, own=own, k=10)
    np.testing.assert_array_equal(found, Nearest().open(FEW)(QUERIES, own=own, k=10))


def test_a_list_ends_where_all_that_is_left_was_seen():
    own = np.tile(np.arange(5), (1, 1))
    found = ByIndex(engine="exact").open(FEW[:8])(QUERIES[:1], own=own, k=8)
    assert set(found[0, :3]) == {5, 6, 7} and (found[0, 3:] == -1).all()


def test_the_live_index_was_built_of_other_vectors():
    index = ByIndex(engine="live", updated=0.25).index(FEW)
    assert isinstance(index, LiveIndex)
    assert index.stats()["new"] == index.stats()["dead"] == 15
    assert not np.array_equal(np.asarray(index._view.base.engine.vectors), FEW)


def test_an_approximate_index_keeps_most_of_the_exact_list():
    kept = {}
    exact = Nearest().open(MANY)(QUERIES, own=None, k=10)
    for recall in (0.5, 0.99):
        found = ByIndex(recall=recall).open(MANY)(QUERIES, own=None, k=10)
        kept[recall] = np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)])
    assert 0.3 < kept[0.5] < kept[0.99]


def test_the_evaluation_measures_lists_and_times():
    options = {**OPTIONS, "corpus": Shop(), "metrics": OF_LISTS, "groups": "category"}
    exact = RetrieveLists(**options).run(predict).values
    found = RetrieveLists(**options, way=ByIndex(engine="live"), one_by_one=7).run(predict).values
    assert found["exact_recall@5"] == 1
    assert found["interest_coverage@5"] == exact["interest_coverage@5"]
    assert 0 < found["seconds_alone/p50"] <= found["seconds_alone/p99"] and "seconds_alone/p50" not in exact


@pytest.mark.parametrize("wrong", [{"recall": 0.0}, {"updated": 1.5}])
def test_shares_are_shares(wrong):
    with pytest.raises(ValueError, match="are shares"):
        chz.replace(ByIndex(), **wrong)
