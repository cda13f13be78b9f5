"""Splits of logs against plain loops."""

import numpy as np
import pyarrow as pa
import pytest

from data.building.interactions import Log, look_up, numbered
from data.building.read import Manual
from data.features import FIRST


@pytest.fixture
def manual(tmp_path):
    return Manual(tmp_path, home="nowhere", max_rejects=0.01, md5={})


def events(rng, rows=300, users=20):
    return pa.table(
        {
            "user": rng.integers(0, users, rows),
            "item": rng.integers(1000, 1040, rows),
            "time": rng.integers(0, 60, rows),  # many ties
        }
    )


def past(table, row):
    """Items of the user of `row` before it, ties in the order of the file."""
    user, item, time = (table[name].to_pylist() for name in ("user", "item", "time"))
    mine = [k for k in range(len(user)) if user[k] == user[row]]
    mine.sort(key=lambda k: (time[k], k))
    return [item[k] for k in mine[: mine.index(row)]]


def test_temporal_parts_hold_each_event_once_with_its_past(rng):
    table = events(rng)
    parts = {name: pa.concat_tables(tables) for name, tables in Log(table, length=5).temporal().items()}
    assert sum(part.num_rows for part in parts.values()) == table.num_rows
    assert max(parts["train"]["time"].to_pylist()) < min(parts["valid"]["time"].to_pylist())
    assert max(parts["valid"]["time"].to_pylist()) < min(parts["test"]["time"].to_pylist())
    wanted = sorted(
        (table["user"][k].as_py(), table["time"][k].as_py(), table["item"][k].as_py(), past(table, k)[-5:])
        for k in range(table.num_rows)
    )
    found = sorted(
        (row["user"], row["time"], row["item"], row["history"]) for part in parts.values() for row in part.to_pylist()
    )
    assert found == wanted


def test_last_two_of_each_user_and_those_too_short_are_named(rng, manual):
    table = events(rng, rows=100, users=25)
    ids, rows = numbered(table["item"])
    assert rows == FIRST + len(set(table["item"].to_pylist()))
    parts = {n: pa.concat_tables(t) for n, t in Log(table).last_two(items=ids, manual=manual).items()}
    of_item = dict(zip(table["item"].to_pylist(), ids.tolist(), strict=True))
    by_user: dict = {}
    for k in sorted(range(table.num_rows), key=lambda k: (table["time"][k].as_py(), k)):
        by_user.setdefault(table["user"][k].as_py(), []).append(of_item[table["item"][k].as_py()])
    long = {user: items for user, items in by_user.items() if len(items) >= 4}
    assert 0 < len(long) < len(by_user)
    assert manual.notes == [f"{len(by_user) - len(long)} users with fewer than 4 events are left out"]
    for back, part in ((3, "train"), (2, "valid"), (1, "test")):
        found = {row["user"]: (row["history"], row["target"]) for row in parts[part].to_pylist()}
        assert found == {user: (items[:-back], items[-back]) for user, items in long.items()}


def test_facts_are_joined_by_id_and_empty_where_unknown():
    table = pa.table({"item": [3, 1, 9]})
    other = pa.table({"item": [1, 2, 3], "title": ["one", "two", "three"], "tags": [["a"], [], ["b", "c"]]})
    joined = look_up(table, on="item", other=other)
    assert joined["title"].to_pylist() == ["three", "one", ""]
    assert joined["tags"].to_pylist() == [["b", "c"], ["a"], None]


def test_numbers_follow_no_order_of_the_values():
    ids, _ = numbered(pa.chunked_array([np.arange(500)]))
    assert abs(np.corrcoef(np.arange(500), ids)[0, 1]) < 0.15
