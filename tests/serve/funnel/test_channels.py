"""Channels and their merging, by hand on a few items."""

import numpy as np
import pyarrow as pa
import pytest

from data.errors import UserError
from serve.channels import Asked, Candidate, ItemChannel, ListChannel, Source, TowerChannel, gather
from serve.features.arrow_store import build as store
from serve.funnel_config import ByItem, ByList, ByTower, Channel, FunnelConfig, Merge
from serve.funnel_indexes import Indexes
from serve.index.attributes import Attributes
from serve.index.build import build
from serve.index.where import Where

VECTORS = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [-1.0, 0.0]], np.float32)
IDS = [11, 22, 33, 44, 55]
COLOURS = Attributes.of_table(pa.table({"colour": ["red", "blue", "red", "blue", "red"]}))


@pytest.fixture
def folder(tmp_path):
    build(VECTORS, ids=IDS, model="m", attributes=COLOURS).save(tmp_path / "index")
    store(pa.table({"id": IDS[:4], "vector": VECTORS[:4].tolist()}), id="id", output=tmp_path / "vectors")
    lists = pa.table({"key": ["shoes", "all"], "items": [[33, 11, 33, 22], [44, 55, 11]]})
    store(lists, id="key", output=tmp_path / "lists")
    return tmp_path


def red(ids):
    return np.array([id in (11, 33, 55) for id in ids])


def test_item_to_item_finds_what_is_like_any_seed_and_no_seed(folder):
    channel = ItemChannel(ByItem(index="index", vectors="vectors", last=2), folder=folder, indexes=Indexes(folder))
    asked = Asked({"history": [55, 11, 33]})  # the newest two: 11 and 33
    found = channel.find(asked, quota=2)
    assert [id for id, _ in found] == [22, 44]
    np.testing.assert_allclose([score for _, score in found], [0.9, 0.9], atol=1e-6)
    assert [id for id, _ in channel.find(Asked({"history": [11]}, item=33), quota=9)] == [44, 22, 11, 55]
    assert [id for id, _ in channel.find(Asked({"history": [11]}), quota=1)] == [22], "a seed took another's place"
    assert [id for id, _ in channel.find(Asked({"history": [11]}, where=Where.parse({"colour": "red"})), quota=9)] == [
        33,
        55,
    ]


@pytest.mark.parametrize("history", [[], None, [55], [99]])
def test_seeds_that_say_nothing_find_nothing(folder, history):
    channel = ItemChannel(ByItem(index="index", vectors="vectors", last=1), folder=folder, indexes=Indexes(folder))
    assert channel.find(Asked({"history": history}), quota=5) == []


def test_lists_go_by_key_then_by_default_each_item_once(folder):
    channel = ListChannel(ByList(lists="lists", key="shop", default="all"), folder=folder)
    assert channel.find(Asked({"shop": "shoes"}), quota=9) == [(33, None), (11, None), (22, None)]
    assert channel.find(Asked({"shop": "hats"}), quota=2) == [(44, None), (55, None)]
    assert channel.find(Asked({"shop": None}), quota=9)[0] == (44, None)
    assert ListChannel(ByList(lists="lists", key="shop"), folder=folder).find(Asked({"shop": "hats"}), quota=9) == []
    assert channel.find(Asked({"shop": "shoes"}, meets=red), quota=1) == [(33, None)]
    assert channel.find(Asked({"shop": "shoes"}, meets=red), quota=9) == [(33, None), (11, None)]


def test_a_vector_of_the_request_is_searched_and_without_one_there_is_nothing_to_search(folder):
    channel = TowerChannel(ByTower(index="index"), folder=folder, indexes=Indexes(folder))
    found = channel.find(Asked({}, vector=[1.0, 0.0]), quota=3)
    assert [id for id, _ in found] == [11, 22, 44]
    assert channel.find(Asked({}), quota=3) == []
    some = channel.find(Asked({}, vector=[1.0, 0.0], where=Where.parse({"colour": ["blue"]})), quota=5)
    assert [id for id, _ in some] == [22, 44], "what is not there was found"
    with pytest.raises(UserError, match=r"queries have shape \(1, 3\)"):
        channel.find(Asked({}, vector=[1.0, 0.0, 0.0]), quota=3)


class Fixed:
    def __init__(self, *found):
        self.found = found

    def find(self, asked, *, quota):
        return list(self.found)[:quota]


def merged(merge, *, skip=(), **channels):
    """Channels by name: (quota, weight, what they find)."""
    config = FunnelConfig(
        channels={n: Channel(quota=quota, weight=weight) for n, (quota, weight, _) in channels.items()},
        ranker="r",
        features="f",
        merge=merge,
    )
    opened = {name: Fixed(*found) for name, (_, _, found) in channels.items()}
    return gather(config, opened=opened, asked=Asked({}), skip=skip)


def test_merged_by_rank_every_candidate_stands_once_with_all_its_sources():
    got = merged(
        Merge(normalise="rank"),
        near=(2, 1.0, [("a", 9.0), ("b", 8.0), ("z", 7.0)]),
        list=(5, 2.0, [("b", None), ("c", None)]),
    )
    assert got == [
        Candidate("b", 1 / 62 + 2 / 61, {"near": Source(2, 8.0), "list": Source(1)}),
        Candidate("c", 2 / 62, {"list": Source(2)}),
        Candidate("a", 1 / 61, {"near": Source(1, 9.0)}),
    ]
    assert [c.id for c in merged(Merge(), near=(2, 1.0, [("a", 1.0)]), list=(5, 1.0, [("b", None)]))] == ["a", "b"]
    assert [
        c.id for c in merged(Merge(), skip={"near"}, near=(2, 1.0, [("a", 1.0)]), list=(5, 1.0, [("b", None)]))
    ] == ["b"]


def test_merged_by_range_scores_are_spread_within_a_channel():
    got = merged(
        Merge(normalise="range"),
        near=(9, 1.0, [("a", 30.0), ("b", 20.0), ("c", 10.0)]),
        other=(9, 0.5, [("c", -1.0)]),
        list=(9, 1.0, [("d", None), ("b", None), ("e", None), ("f", None)]),
    )
    wanted = {"a": 1.0, "b": 0.5 + 0.75, "c": 0.5, "d": 1.0, "e": 0.5, "f": 0.25}
    assert {c.id: c.score for c in got} == pytest.approx(wanted)
    assert [c.id for c in got] == ["b", "a", "d", "c", "e", "f"]


def test_wrong_configs_are_refused():
    for wrong in (
        lambda: Channel(quota=0),
        lambda: Channel(weight=0.0),
        lambda: Merge(limit=0),
        lambda: FunnelConfig(channels={}, ranker="r", features="f"),
        lambda: FunnelConfig(channels={"rank": Channel()}, ranker="r", features="f"),
    ):
        with pytest.raises(ValueError):
            wrong()
