"""Attributes of the rows of an index, in columns, and the rows that meet a filter.

A column holds text, whole numbers, numbers or truth values. An item may lack a value; it then meets no condition on it.
Rows are only ever added (into room kept for them), so that a reader may go on with the rows it counted.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.columns import is_text
from data.errors import UserError
from serve.index.where import Condition, Where

Kind = Literal["text", "integer", "number", "truth"]
TYPES: dict[Kind, Any] = {"text": np.int32, "integer": np.int64, "number": np.float64, "truth": np.bool_}
ARROW: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "truth": pa.bool_(),
}
KEPT_MASKS = 8


class Words:
    """Each text once; a column of text holds places."""

    def __init__(self, names: Sequence[str] = ()):
        self.names = list(names)
        self.places = {name: place for place, name in enumerate(self.names)}

    def learn(self, name: str) -> int:
        place = self.places.get(name)
        if place is None:
            place = len(self.names)
            self.names.append(name)
            self.places[name] = place
        return place


@dataclass
class Column:
    kind: Kind
    values: np.ndarray
    valid: np.ndarray
    words: Words

    def encoded(self, name: str, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Values and which are there; new words are learned."""
        valid = np.array([value is not None for value in values], bool)
        out = np.zeros(len(values), TYPES[self.kind])
        for at in np.flatnonzero(valid).tolist():
            value = _checked(values[at], kind=self.kind, name=name)
            out[at] = self.words.learn(value) if self.kind == "text" else value
        return out, valid

    def decoded(self, rows: np.ndarray) -> list[Any]:
        """Plain values, None where there is none."""
        names = self.words.names
        plain = [names[place] if names else None for place in self.values[rows]] if self.kind == "text" else None
        values = self.values[rows].tolist() if plain is None else plain
        return [value if there else None for value, there in zip(values, self.valid[rows].tolist(), strict=True)]

    def meets(self, condition: Condition, *, count: int) -> np.ndarray:
        values, valid = self.values[:count], self.valid[:count]
        if condition.values is None:
            if self.kind in ("text", "truth"):
                raise UserError(f"filter on {condition.name!r}: it holds {self.kind}, which has no range; give values")
            return valid & (values >= condition.low) & (values <= condition.high)
        wanted = [_checked(value, kind=self.kind, name=condition.name) for value in condition.values]
        if self.kind == "text":
            wanted = [self.words.places[word] for word in wanted if word in self.words.places]
        return valid & np.isin(values, np.array(wanted, TYPES[self.kind]))


def _checked(value: Any, *, kind: Kind, name: str) -> Any:
    fits = {
        "text": isinstance(value, str),
        "integer": isinstance(value, int | np.integer) and not isinstance(value, bool),
        "number": isinstance(value, int | float | np.number) and not isinstance(value, bool) and value == value,
        "truth": isinstance(value, bool | np.bool_),
    }[kind]
    if not fits:
        raise UserError(f"attribute {name!r} holds {kind}; {value!r} is none")
    return value


class Attributes:
    """Columns of equal length. `Attributes.none(n)` has no columns."""

    def __init__(self, columns: Mapping[str, Column], *, count: int):
        self.columns, self.count = dict(columns), count
        self._masks: OrderedDict[str, np.ndarray] = OrderedDict()

    @classmethod
    def none(cls, count: int) -> "Attributes":
        return cls({}, count=count)

    @classmethod
    def of_table(cls, table: pa.Table) -> "Attributes":
        columns = {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            kind = _kind(column.type, name=name)
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            words = Words()
            if kind == "text":
                coded = column.cast(pa.string()).dictionary_encode()
                words = Words(coded.dictionary.to_pylist())
                values = coded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
            else:
                plain = column.cast(ARROW[kind])
                values = plain.fill_null(pa.scalar(0).cast(plain.type)).to_numpy(zero_copy_only=False).copy()
            if kind == "number":
                valid = valid & ~np.isnan(values)
            columns[name] = Column(kind, values, valid.copy(), words)
        return cls(columns, count=len(table))

    @classmethod
    def of_values(cls, values: Mapping[str, Sequence[Any]], *, kinds: Mapping[str, Kind]) -> "Attributes":
        """From plain values, None where there is none."""
        return cls.of_table(pa.table({name: pa.array(values[name], ARROW[kind]) for name, kind in kinds.items()}))

    def table(self) -> pa.Table:
        rows = np.arange(self.count)
        return pa.table({name: pa.array(c.decoded(rows), ARROW[c.kind]) for name, c in self.columns.items()})

    def mask(self, where: Where, *, count: int | None = None, keep: bool = False) -> np.ndarray:
        """Which of the first `count` rows meet the filter; `keep` remembers the answer for rows that never change."""
        count = self.count if count is None else count
        key = repr(where)  # not the filter itself: True and 1 are equal in Python
        found = self._masks.get(key) if keep else None
        if found is None:
            found = np.ones(count, bool)
            for condition in where.conditions:
                found &= self._column(condition.name).meets(condition, count=count)
            if keep:
                self._masks[key] = found
                while len(self._masks) > KEPT_MASKS:
                    self._masks.popitem(last=False)
        return found

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none; build the index with --attributes"
            raise UserError(f"the index has no attribute {name!r}; it has {known}")
        return self.columns[name]

    def take(self, rows: np.ndarray) -> "Attributes":
        picked = {
            name: Column(c.kind, c.values[rows], c.valid[rows], Words(c.words.names))
            for name, c in self.columns.items()
        }
        return Attributes(picked, count=len(rows))

    def empty(self, *, room: int) -> "Attributes":
        """No rows yet, the same columns, room for some."""
        columns = {
            name: Column(c.kind, np.zeros(room, TYPES[c.kind]), np.zeros(room, bool), Words(c.words.names))
            for name, c in self.columns.items()
        }
        return Attributes(columns, count=0)

    def grown(self, *, room: int) -> "Attributes":
        out = self.empty(room=room)
        for name, column in self.columns.items():
            out.columns[name].values[: self.count] = column.values[: self.count]
            out.columns[name].valid[: self.count] = column.valid[: self.count]
        out.count = self.count
        return out

    def encoded(self, values: Mapping[str, Sequence[Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Checked before any is written, so that a wrong value changes nothing."""
        return {name: self._column(name).encoded(name, column) for name, column in values.items()}

    def write(self, encoded: Mapping[str, tuple[np.ndarray, np.ndarray]], *, at: int, count: int) -> None:
        """Into the room behind the rows."""
        for name, (values, valid) in encoded.items():
            self.columns[name].values[at : at + count] = values
            self.columns[name].valid[at : at + count] = valid
        self.count = at + count


def joined(parts: Sequence[Attributes]) -> Attributes:
    tables = [part.table() for part in parts]
    if not parts[0].columns:
        return Attributes.none(sum(part.count for part in parts))
    return Attributes.of_table(pa.concat_tables(tables))


def read_attributes(path: Path, *, ids: np.ndarray, id: str = "id") -> tuple[Attributes, int, int]:
    """Of the items `ids`, in their order, from a Parquet file with a column `id`.

    Also how many items have no row there, and how many rows speak of other items.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} holds no attributes: {str(error).splitlines()[0][:160]}") from error
    if id not in table.column_names:
        raise UserError(f"{path} has no column {id!r} that names the items; it has {', '.join(table.column_names)}")
    if table[id].null_count:
        raise UserError(f"{path}: column {id!r} lacks {table[id].null_count} of its values; each row names its item")
    names = table[id].to_numpy()
    if (names.dtype.kind in "iu") != (ids.dtype.kind in "iu"):
        raise UserError(f"{path}: column {id!r} is {table[id].type}, the ids of the vectors are {ids.dtype}")
    order = np.argsort(names, kind="stable")
    twice = np.flatnonzero(names[order][1:] == names[order][:-1])
    if len(twice):
        raise UserError(f"{path}: id {names[order][twice[0]]!r} stands twice")
    place = {name: at for at, name in enumerate(names.tolist())}
    at = [place.get(item) for item in ids.tolist()]
    rows = table.drop_columns([id]).take(pa.array(at, pa.int64()))
    missing = sum(a is None for a in at)
    return Attributes.of_table(rows), missing, len(names) - (len(ids) - missing)


def _kind(type: pa.DataType, *, name: str) -> Kind:
    if is_text(type):
        return "text"
    if pa.types.is_boolean(type):
        return "truth"
    if pa.types.is_integer(type):
        return "integer"
    if pa.types.is_floating(type) or pa.types.is_decimal(type):
        return "number"
    raise UserError(f"attribute {name!r} is {type}; attributes are text, numbers or truth values")
