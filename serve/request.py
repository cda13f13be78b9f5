"""Raw fields of a request, encoded as batch scoring encodes its rows: one user with the context, many candidates.

A faulty candidate is set aside by name, as a row of a Parquet file would be; a faulty user stops the request.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.encode import encode
from data.errors import UserError
from data.features import Features, Image
from data.rejects import Rejects
from data.vocabulary import Vocabularies

Columns = Mapping[str, Sequence[Any]]


class Unreadable(UserError):
    """A field of the request whose value no encoding takes."""

    def __init__(self, message: str, *, field: str):
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Encoded:
    """`rows` holds the candidates at the positions `keep` of `count`; arrays of the user have one row."""

    rows: dict[str, np.ndarray]
    keep: np.ndarray
    count: int
    rejects: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    """What was mended: unknown values, histories cut."""

    def spread(self, outputs: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        """Outputs of the kept candidates as lists over all of them, null where one was set aside."""
        if len(self.keep) == self.count:
            return {name: array.tolist() for name, array in outputs.items()}
        spread: dict[str, list[Any]] = {}
        for name, array in outputs.items():
            values: list[Any] = [None] * self.count
            for at, value in zip(self.keep.tolist(), array.tolist(), strict=True):
                values[at] = value
            spread[name] = values
        return spread


class RequestEncoder:
    """Of the features that a model reads. The user's part is those whose role is user or context."""

    def __init__(self, features: Features, *, vocabularies: Path | None):
        self.user = Features(all=tuple(f for f in features.all if f.role != "item"))
        self.item = Features(all=tuple(f for f in features.all if f.role == "item"))
        self._vocabularies = Vocabularies(vocabularies)

    def __call__(self, user: Mapping[str, Any], candidates: Columns) -> Encoded:
        """`candidates` are columns of equal length, one for each feature of the item."""
        rows, user_rejects = self.encode_user(user)
        table = self._table(candidates, features=self.item, where="candidates")
        done = encode(table, features=self.item, vocabularies=self._vocabularies, file="candidates")
        rejects = [
            {"candidate": line["row"], **{k: v for k, v in line.items() if k in ("field", "why", "value")}}
            for line in done.rejects.lines()
        ]
        notes = [*_notes(user_rejects), *_notes(done.rejects)]
        return Encoded({**rows, **done.rows}, np.asarray(done.keep), table.num_rows, rejects, notes)

    def encode_user(self, user: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], Rejects]:
        """One row of the user's and the context's arrays."""
        table = self._table({name: [value] for name, value in user.items()}, features=self.user, where="user")
        done = encode(table, features=self.user, vocabularies=self._vocabularies, file="user")
        for line in done.rejects.lines():
            shown = f" ({line['value']})" if "value" in line else ""
            raise Unreadable(f"user.{line['field']}: {line['why']}{shown}", field=f"user.{line['field']}")
        return done.rows, done.rejects

    def _table(self, columns: Columns, *, features: Features, where: str) -> pa.Table:
        known = [f.name for f in features.all]
        for name in columns:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the model reads {', '.join(known) or 'nothing'}"
                raise UserError(f"{where} has a field {name!r} that the model does not read; {hint}")
        missing = [name for name in known if name not in columns]
        if missing:
            raise UserError(f"{where} lacks the field {missing[0]!r}; a value that is not known is null")
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"{where} differ in their number of values: {lengths}")
        return pa.table({f.name: _array(columns[f.name], feature=f, where=where) for f in features.all})


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows with the same fields each, as columns."""
    names = list(rows[0]) if rows else []
    for at, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            differing = sorted(set(row) ^ set(names))
            raise UserError(
                f"candidates[{at}] and candidates[0] differ in the field {differing[0]!r}; give all of both"
            )
    return {name: [row[name] for row in rows] for name in names}


def _array(values: Sequence[Any], *, feature: Any, where: str) -> pa.Array:
    label = f"{where}.{feature.name}"
    if isinstance(feature, Image):
        return pa.array([None if v is None else from_base64(v, label=label) for v in values], pa.binary())
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{label} does not hold values of one type: {reason}") from error


def from_base64(value: Any, *, label: str) -> bytes:
    """JSON has no bytes."""
    if not isinstance(value, str):
        raise UserError(f"{label} is a picture: give the bytes of its file as base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{label} is not base64: {error}") from error


def _notes(rejects: Rejects) -> list[dict[str, Any]]:
    return [{"field": name, "why": why, "count": count} for (name, why), count in sorted(rejects.notes.items())]
