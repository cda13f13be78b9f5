"""An update as the log keeps it: ids, and of an upsert their vectors and the attributes that were given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import UserError

OP = b"adloom.update"
MARK = "="
"""Before the name of an attribute, so that one may be called id."""

Values = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Update:
    """Vectors of None: the ids are deleted."""

    ids: np.ndarray
    vectors: np.ndarray | None = None
    values: Values | None = None

    def record(self) -> pa.Table:
        text = self.ids.dtype.kind == "U"
        columns: dict[str, Any] = {"id": pa.array(self.ids.tolist(), pa.string() if text else pa.int64())}
        if self.vectors is not None:
            flat = pa.array(self.vectors.reshape(-1))
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1])
        columns |= {f"{MARK}{name}": pa.array(column) for name, column in (self.values or {}).items()}
        return pa.table(columns).replace_schema_metadata({OP: b"delete" if self.vectors is None else b"upsert"})

    @classmethod
    def of_record(cls, table: pa.Table) -> "Update":
        ids = np.array(table["id"].to_pylist(), str if pa.types.is_string(table["id"].type) else np.int64)
        if (table.schema.metadata or {}).get(OP) == b"delete":
            return cls(ids)
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = {name[len(MARK) :]: table[name].to_pylist() for name in table.column_names if name.startswith(MARK)}
        return cls(ids, flat.reshape(len(ids), -1), values)


def plain_values(attributes: Values | pa.Table | None, *, count: int) -> dict[str, list[Any]]:
    """By attribute, a value or None for each item."""
    if attributes is None:
        return {}
    columns = attributes.to_pydict() if isinstance(attributes, pa.Table) else attributes
    values = {str(name): list(column) for name, column in columns.items()}
    if wrong := [name for name, column in values.items() if len(column) != count]:
        raise UserError(f"attribute {wrong[0]!r} has {len(values[wrong[0]])} values for {count} items")
    return values
