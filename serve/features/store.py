"""What is known of items (or of anything with an id) at request time: raw columns by id, behind one interface.

Values are raw, as they stand in the logs: whoever asks encodes them as batch scoring does, with the same code.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from data.columns import column, is_text
from data.errors import UserError
from data.hashing import hash_column
from data.paths import expand

Item = int | str
Ids = np.ndarray | Sequence[int] | Sequence[str] | Sequence[Item]


@dataclass(frozen=True)
class Looked:
    """A row for each id that was asked for, in that order; nulls where the store does not know the id."""

    columns: pa.Table
    found: np.ndarray


class FeatureStore(Protocol):
    id: str
    """The column that names a row; it may be asked for like any other."""
    version: str

    @property
    def schema(self) -> pa.Schema: ...
    def get(self, ids: Ids, *, names: Collection[str]) -> Looked: ...


class StoreDown(UserError):
    """The store cannot be reached now; the request is in order and may be sent again."""


def open_store(where: str) -> FeatureStore:
    """A folder that `python -m serve features` wrote, or redis://HOST:PORT/DB#NAME (also rediss:// and unix://)."""
    if "://" in where:
        from serve.features.redis_store import RedisStore

        return RedisStore(where)
    from serve.features.arrow_store import ArrowStore

    return ArrowStore(expand(where))


def key_array(ids: Ids, *, of: pa.DataType, store: str) -> pa.Array:
    """`ids` as an array of the store's type of id."""
    text = is_text(of)
    values = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if any(isinstance(v, bool) or not isinstance(v, str if text else int) for v in values):
        wrong = next(v for v in values if isinstance(v, bool) or not isinstance(v, str if text else int))
        raise UserError(f"{store}: ids are {'strings' if text else 'integers'}, not {wrong!r}")
    try:
        return pa.array(values, of)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise UserError(f"{store}: an id does not fit into {of}: {error}") from error


def check_names(names: Collection[str], *, schema: pa.Schema, store: str) -> list[str]:
    """The names, each once; one that the store does not have is answered with the nearest that it has."""
    for name in names:
        if name not in schema.names:
            near = get_close_matches(name, schema.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(schema.names)}"
            raise UserError(f"{store} has no column {name!r}; {hint}")
    return list(dict.fromkeys(names))


def by_hash(table: pa.Table, *, id: str) -> tuple[pa.Table, np.ndarray]:
    """The rows in the order of the hashes of their ids, and those hashes, if the ids can name rows."""
    what = "the table of features"
    check_names([id], schema=table.schema, store=what)
    if not len(table):
        raise UserError(f"{what} holds no rows; a store of none would find nothing")
    ids = column(table, id, file=what)
    if not (pa.types.is_integer(ids.type) or is_text(ids.type)):
        raise UserError(f"{what}: ids are integers or strings, column {id!r} is {ids.type}")
    if ids.null_count:
        raise UserError(f"{what}: {ids.null_count:,} rows have no {id!r}")
    hashes = hash_column(ids)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    twice = np.flatnonzero(hashes[1:] == hashes[:-1])
    if len(twice):
        one, other = (ids[int(order[twice[0] + k])].as_py() for k in (0, 1))
        if one == other:
            raise UserError(f"id {one!r} stands twice in {what}, and {len(twice) - 1} more do; keep one row of each")
        raise UserError(f"ids {one!r} and {other!r} have one hash; rename one of them")
    return table.take(pa.array(order)).combine_chunks().replace_schema_metadata(None), hashes


def name_of(folder: Path) -> str:
    """For messages, which may go to whoever sent a request: no path of the machine."""
    return f"feature store {folder.name}"
