"""What a build found: rows, users, items, positives, the hash of each split, vocabularies, and leaks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.columns import empty_is_null, is_list, is_text
from data.hashing import hash_column
from data.vocabulary import Vocabulary

CHECKED = 1 << 20
"""Rows of a split in which ids and histories are searched for leaks."""
COMPACT = 1 << 21


@dataclass(frozen=True)
class Keys:
    """Which columns mean what; None or empty where the set has none."""

    user: str | None = None
    item: str | None = None
    label: str | None = None
    time: str | None = None
    histories: Mapping[str, str] = field(default_factory=dict)
    """List column of past ids -> the column of the target of the same kind."""


class Counter:
    """How often each value occurs, in memory that grows with the distinct values."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._held = 0

    def add(self, values: pa.Array) -> None:
        if is_list(values.type):
            values = values.flatten()
        values = empty_is_null(values)
        found = pc.value_counts(values.drop_null())
        self._tables.append(pa.table({"value": found.field(0), "count": found.field(1)}))
        self._held += len(found)
        if self._held > COMPACT:
            self._held = self.table.num_rows

    @property
    def table(self) -> pa.Table:
        if len(self._tables) != 1:
            joined = pa.concat_tables(self._tables).group_by("value").aggregate([("count", "sum")])
            self._tables = [joined.rename_columns(["value", "count"])]
        return self._tables[0]

    def vocabulary(self, name: str) -> Vocabulary:
        table = (
            self.table
            if self._tables
            else pa.table({"value": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        )
        return Vocabulary(table["value"].combine_chunks(), table["count"].to_numpy(), name=name)


class Distinct:
    """The number of distinct values, by their hashes."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._held = 0

    def add(self, values: pa.Array) -> None:
        self._parts.append(np.unique(hash_column(empty_is_null(values).drop_null())))
        self._held += len(self._parts[-1])
        if self._held > COMPACT:
            self._held = len(self)

    def __len__(self) -> int:
        self._parts = [np.unique(np.concatenate(self._parts))] if self._parts else []
        return len(self._parts[0]) if self._parts else 0


class Ledger:
    """Reads every block once as it is written."""

    def __init__(self, keys: Keys, *, vocabularies: Mapping[str, list[str]], learn_from: tuple[str, ...]):
        self.keys, self.named, self.learn_from = keys, vocabularies, learn_from
        self.counters = {name: Counter() for name in vocabularies}
        self.users, self.items = Distinct(), Distinct()
        self.rows: dict[str, int] = {}
        self.positives: dict[str, float] = {}
        self._hashes: dict = {}
        self._times: dict[str, dict[int, int]] = {}
        self._unordered: dict[str, int] = {}
        self._last_time: dict[str, int] = {}
        self._first: dict[str, list[np.ndarray]] = {}
        self._in_history: dict[str, list[int]] = {}

    def add(self, split: str, table: pa.Table) -> None:
        seen = self.rows.get(split, 0)
        self.rows[split] = seen + table.num_rows
        self._hash(split, table)
        keys = self.keys
        if keys.user:
            self.users.add(table[keys.user].combine_chunks())
        if keys.item:
            self.items.add(table[keys.item].combine_chunks())
        if keys.label:
            positive = int(pc.sum(pc.greater(table[keys.label], 0)).as_py() or 0)
            self.positives[split] = self.positives.get(split, 0) + positive
        if split in self.learn_from:
            for name, columns in self.named.items():
                for column in columns:
                    self.counters[name].add(table[column].combine_chunks())
        if keys.time:
            self._time(split, table[keys.time].to_numpy())
        if seen < CHECKED:
            self._order(table)
            self._histories(split, table)

    def _hash(self, split: str, table: pa.Table) -> None:
        digest = self._hashes.setdefault(split, hashlib.blake2b(split.encode(), digest_size=8))
        for name in table.column_names:
            values = table[name].combine_chunks()
            if is_list(values.type):
                digest.update(
                    values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype("<i4").tobytes()
                )
                values = values.flatten()
            if is_text(values.type) or pa.types.is_binary(values.type):
                digest.update(hash_column(values).astype("<u8").tobytes())
            else:
                digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())

    def _time(self, split: str, times: np.ndarray) -> None:
        times = times[times > 0]  # 0 stands for missing
        if not len(times):
            return
        last = np.append(self._last_time.get(split, times[0]), times)
        self._unordered[split] = self._unordered.get(split, 0) + int((np.diff(last) < 0).sum())
        self._last_time[split] = int(times[-1])
        held = self._times.setdefault(split, {})
        for value, count in zip(*np.unique(times, return_counts=True), strict=True):
            held[int(value)] = held.get(int(value), 0) + int(count)

    def _order(self, table: pa.Table) -> None:
        """First appearances, for columns whose ids are numbers."""
        for name in filter(None, (self.keys.user, self.keys.item)):
            values = table[name].combine_chunks()
            if pa.types.is_integer(values.type):
                ids = values.to_numpy()
                _, at = np.unique(ids, return_index=True)
                self._first.setdefault(name, []).append(ids[np.sort(at)])

    def _histories(self, split: str, table: pa.Table) -> None:
        label = table[self.keys.label].to_numpy() > 0 if self.keys.label else np.ones(table.num_rows, bool)
        for name, target in self.keys.histories.items():
            held = table[name].combine_chunks()
            lengths = held.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            row = np.repeat(np.arange(len(lengths)), lengths)
            successor = np.zeros(len(lengths), bool)
            flat, wanted = held.flatten(), table[target].combine_chunks()
            if not pa.types.is_integer(flat.type):
                flat, wanted = pa.array(hash_column(flat).view(np.int64)), pa.array(hash_column(wanted).view(np.int64))
            else:
                most = np.full(len(lengths), np.iinfo(np.int64).min)
                np.maximum.at(most, row, flat.to_numpy())
                successor = (most + 1 == wanted.to_numpy()) & (lengths > 0)
            inside = np.zeros(len(lengths), bool)
            inside[row[flat.to_numpy() == wanted.to_numpy()[row]]] = True
            some = lengths > 0
            found = self._in_history.setdefault(name, [0] * 6)
            for at, mask in ((0, label & some), (3, ~label & some)):
                found[at] += int(mask.sum())
                found[at + 1] += int((inside & mask).sum())
                found[at + 2] += int((successor & mask).sum())

    # What came out ---------------------------------------------------------------------------------------------

    def statistics(self) -> dict:
        """Per split: rows, positives, hash; over all: users, items, density."""
        users, items, rows = len(self.users), len(self.items), sum(self.rows.values())
        out: dict = {"splits": {}, "rows": rows}
        for split, count in self.rows.items():
            out["splits"][split] = {"rows": count, "hash": self._hashes[split].hexdigest()}
            if split in self.positives:
                out["splits"][split]["positives"] = int(self.positives[split])
        whole = hashlib.blake2b(digest_size=8)
        for split in sorted(self.rows):
            whole.update(split.encode() + self._hashes[split].digest())
        out["hash"] = whole.hexdigest()
        if self.keys.user:
            out["users"] = users
        if self.keys.item:
            out["items"] = items
        if users and items:
            out["density"] = rows / (users * items)
        return out

    def leaks(self) -> list[str]:
        """Findings, the harmless too: a reader shall see what was looked at. Those that matter begin with LEAK."""
        return [*self._order_findings(), *self._history_findings(), *self._time_findings()]

    def _order_findings(self):
        for name, parts in self._first.items():
            ids = np.concatenate(parts)
            _, at = np.unique(ids, return_index=True)
            ids = ids[np.sort(at)]
            if len(ids) < 3:
                continue
            rising = float((np.diff(ids) > 0).mean())
            word = "LEAK " if rising > 0.9 else ""
            yield f"{word}id order: {name}: {rising:.1%} of first appearances have a larger id than the one before"

    def _history_findings(self):
        for name, (pos, pos_in, pos_next, neg, neg_in, neg_next) in self._in_history.items():
            inside, outside = pos_in / max(pos, 1), neg_in / max(neg, 1)
            word = "LEAK " if pos and (abs(inside - outside) > 0.2 if neg else inside > 0.9) else ""
            yield f"{word}target in history: {name}: {inside:.1%} of positives, {outside:.1%} of negatives"
            after, other = pos_next / max(pos, 1), neg_next / max(neg, 1)
            word = "LEAK " if after - other > 0.02 else ""
            yield (
                f"{word}id order: {name}: the target is the largest past id plus one in {after:.1%} of positives, "
                f"{other:.1%} of negatives"
            )

    def _time_findings(self):
        order = [split for split in ("train", "valid", "test") if self._times.get(split)]
        for split, count in self._unordered.items():
            yield f"time order: {split}: {count} of {self.rows[split]} rows are older than the row before"
        for late in order[1:]:
            first = min(self._times[late])
            newer = sum(n for value, n in self._times["train"].items() if value >= first) if "train" in order else 0
            share = newer / max(self.rows.get("train", 0), 1)
            word = "LEAK " if share > 0 else ""
            yield f"{word}time travel: {share:.1%} of training rows are as new as the oldest {late} row or newer"
