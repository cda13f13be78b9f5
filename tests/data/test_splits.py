import logging

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Sequence, Time
from data.sources import InMemory, SourceConfig
from data.splits import ByUser, ColdItems, LeaveLastTwo, LeaveOneOut, Temporal, View

FEATURES = Features(
    all=(
        Categorical(name="user", rows=100),
        Categorical(name="item", rows=300),
        Sequence(name="seen", of=Categorical(name="item", rows=300), length=3),
        Time(name="time"),
        Label(name="click"),
    )
)


@chz.chz
class Toy(SourceConfig):
    rows: int = 2000

    def make(self):
        rng = np.random.default_rng(0)
        n = self.rows
        columns = {
            "user": rng.integers(2, 100, n),
            "item": rng.integers(2, 300, n),
            "seen": rng.integers(2, 300, (n, 3)),
            "seen/length": rng.integers(0, 4, n),
            "time": rng.integers(0, 500, n),
            "click": rng.integers(0, 2, n),
        }
        return InMemory(columns, features=FEATURES)


def parts(kind, **options):
    return [kind(source=Toy(), part=part, **options).make() for part in ("train", "valid", "test")]


def values(view, name):
    return view.take(np.arange(len(view)))[name]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Temporal, {}), (LeaveLastTwo, {"user": "user"}), (ByUser, {"user": "user"}), (ColdItems, {"item": "item"})],
)
def test_parts_are_disjoint_and_cover(kind, options):
    views = parts(kind, **options)
    assert sorted(np.concatenate([view.rows for view in views])) == list(range(2000))
    assert all(len(view) for view in views)
    assert len({id(view.source) for view in views}) == 1
    assert len({view.hash for view in views}) == 3 and views[0].hash == parts(kind, **options)[0].hash


def test_time_never_runs_backwards():
    train, valid, test = (values(view, "time") for view in parts(Temporal, valid=0.2, test=0.1))
    assert train.max() < valid.min() and valid.max() < test.min()
    assert 150 < len(test) < 250 and 350 < len(valid) < 450


def test_last_rows_of_each_user():
    train, valid, test = parts(LeaveLastTwo, user="user")
    assert len(test) == len(valid) == 98
    for user in range(2, 100):
        times = [values(view, "time")[values(view, "user") == user] for view in (train, valid, test)]
        assert times[0].max() <= times[1][0] <= times[2][0]


def test_leave_one_out_says_that_it_leaks(caplog):
    with caplog.at_level(logging.WARNING):
        train, valid, test = parts(LeaveOneOut, user="user")
    assert "leaks time" in caplog.text and len(test) == 98 and len(valid) == 0 and len(train) == 1902


def test_strangers_stay_strangers():
    train, _, test = parts(ByUser, user="user", test=0.3)
    assert not set(values(train, "user")) & set(values(test, "user"))
    train, valid, test = parts(ColdItems, item="item", histories=("seen",))
    warm = set(values(train, "item"))
    assert not warm & set(values(test, "item")) and not warm & set(values(valid, "item"))
    held = np.arange(3) < values(train, "seen/length")[:, None]
    assert not set(values(train, "seen")[held]) & set(values(test, "item"))
    assert len(train) < len(parts(ColdItems, item="item")[0])


def test_a_split_needs_what_it_splits_by():
    with pytest.raises(UserError, match="'usr'"):
        ByUser(source=Toy(), part="train", user="usr").make()


def test_a_view_keeps_the_blocks_of_its_source():
    source = Toy().make()
    source.blocks, source.window = np.array([0, 500, 1000, 2000]), 600
    view = View(source, np.arange(0, 2000, 3))
    assert view.blocks.tolist() == [0, 167, 334, 667] and view.window == 600
    assert view[1]["item"] == source[3]["item"]
