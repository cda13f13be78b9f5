"""Splits of a log of who met what and when: by time, or each user's last two."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.building.read import ROW, Manual
from data.columns import is_text
from data.errors import UserError
from data.features import FIRST
from data.hashing import hash_column
from data.splits import PARTS, by_time

CHUNK = 1 << 16


def event_columns(*, item: pa.DataType, more: tuple = ()) -> pa.Schema:
    """Stored by `temporal`: one row per event, with what the same user met before."""
    return pa.schema([("user", pa.int64()), ("item", item), *more, ("time", pa.int64()), ("history", pa.list_(item))])


TARGET_COLUMNS = pa.schema(
    [("user", pa.int64()), ("history", pa.list_(pa.int64())), ("target", pa.int64()), ("time", pa.int64())]
)
"""Stored by `last_two`: one row per user."""


class Log:
    """Events in each user's order; ties in time keep the order of the file. Holds the columns in memory."""

    def __init__(self, table: pa.Table, *, length: int = 50):
        if not table.num_rows:
            raise UserError("no interaction is left of the files: are they those of the release?")
        self.table, self.length = table, length
        self.time = table["time"].to_numpy()
        user = table["user"].to_numpy()
        self.order = np.lexsort((np.arange(len(user)), self.time, user))
        sorted_users = user[self.order]
        self.first = np.searchsorted(sorted_users, sorted_users, side="left")
        """Where the user of each sorted event begins."""
        self.last = np.searchsorted(sorted_users, sorted_users, side="right")
        self.place = np.empty(len(user), np.int64)
        self.place[self.order] = np.arange(len(user))

    def temporal(self, *, valid: float = 0.1, test: float = 0.1) -> dict[str, Iterator[pa.Table]]:
        """Events in order of time; the past trains. A history may reach back into an earlier part."""
        part = by_time(self.time, valid=valid, test=test)
        by_age = np.argsort(self.time, kind="stable")
        return {name: self._events(by_age[part[by_age] == number]) for number, name in enumerate(PARTS)}

    def _events(self, rows: np.ndarray) -> Iterator[pa.Table]:
        items = self.table["item"].combine_chunks().take(pa.array(self.order))
        for at in range(0, len(rows), CHUNK):
            chosen = rows[at : at + CHUNK]
            end = self.place[chosen]
            history = self._windows(items, self.first[end], end)
            yield self.table.take(pa.array(chosen)).append_column("history", history)

    def last_two(self, *, items: np.ndarray, manual: Manual) -> dict[str, Iterator[pa.Table]]:
        """Per user the last event tests, the one before validates, the third last ends the training sequence."""
        ends = np.unique(self.last)
        starts = self.first[ends - 1]
        enough = ends - starts >= 4
        if not enough.all():
            manual.notes.append(f"{(~enough).sum()} users with fewer than 4 events are left out")
        starts, ends = starts[enough], ends[enough]
        return {name: self._users(items, starts, ends - back) for name, back in zip(PARTS, (3, 2, 1), strict=True)}

    def _users(self, items: np.ndarray, starts: np.ndarray, targets: np.ndarray) -> Iterator[pa.Table]:
        user, ordered = self.table["user"].to_numpy(), items[self.order]
        for at in range(0, len(starts), CHUNK):
            start, target = starts[at : at + CHUNK], targets[at : at + CHUNK]
            event = self.order[target]
            history = self._windows(pa.array(ordered), start, target)
            columns = {"user": user[event], "history": history, "target": items[event], "time": self.time[event]}
            yield pa.table(columns)

    def _windows(self, values: pa.Array, start: np.ndarray, end: np.ndarray) -> pa.Array:
        """The newest `length` of values[start:end], for each pair."""
        lengths = np.minimum(end - start, self.length)
        offsets = np.cumsum([0, *lengths])
        at = np.repeat(end - lengths - offsets[:-1], lengths) + np.arange(offsets[-1])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(at)))


def numbered(values: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Ids from 2 in the order of the values' hashes, so that they tell nothing, and the rows that a table needs."""
    found, ids = np.unique(hash_column(values.combine_chunks()), return_inverse=True)
    return ids.astype(np.int64) + FIRST, len(found) + FIRST


def whole(tables: Iterable[pa.Table]) -> pa.Table:
    """All of a file at once, with the name of the file and of each row."""
    return pa.concat_tables(tables).combine_chunks()


def distinct(manual: Manual, table: pa.Table, *, by: tuple[str, ...]) -> pa.Table:
    """The first row of each combination of `by`; the others are set aside."""
    keys = np.zeros(table.num_rows, np.uint64)
    for name in by:
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + hash_column(table[name].combine_chunks())
    good = np.zeros(len(keys), bool)
    good[np.unique(keys, return_index=True)[1]] = True
    return manual.keep(table, good, field=by[-1], why=f"seen before: the same {', '.join(by)}")


def look_up(table: pa.Table, *, on: str, other: pa.Table) -> pa.Table:
    """Adds the other columns of `other`, found by its column `on`: empty where it has no such row."""
    at = pc.index_in(table[on], value_set=other[on].combine_chunks())
    for name in other.column_names:
        if name not in (on, ROW):
            values = other[name].combine_chunks().take(at)
            table = table.append_column(name, pc.fill_null(values, "") if is_text(values.type) else values)
    return table
