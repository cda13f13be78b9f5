"""Tables as TFDS examples: a block of 1024 rows each, one array per column, since an example a row is too slow.

A list column becomes its values end to end and the length of each row. Every block but a split's last is full.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from data.columns import is_bytes, is_list, is_text
from data.errors import UserError

BLOCK = 1024
KEY = "rows_per_example"
"""Metadata entry that says that the examples are blocks."""


def tfds_features(schema: pa.Schema):
    """What TFDS shall store for these columns."""
    import tensorflow_datasets as tfds

    def tensor(kind: pa.DataType):
        if pa.types.is_fixed_size_list(kind):
            return tfds.features.Tensor(shape=(None, kind.list_size), dtype=np.dtype(np.float32))
        if is_text(kind) or is_bytes(kind):
            return tfds.features.Tensor(shape=(None,), dtype=np.str_)
        return tfds.features.Tensor(shape=(None,), dtype=kind.to_pandas_dtype())

    fields = {}
    for field in schema:
        if is_list(field.type) and not pa.types.is_fixed_size_list(field.type):
            length = tfds.features.Tensor(shape=(None,), dtype=np.int32)
            fields[field.name] = tfds.features.FeaturesDict({"values": tensor(field.type.value_type), "length": length})
        else:
            fields[field.name] = tensor(field.type)
    return tfds.features.FeaturesDict(fields)


def cut(tables: Iterable[pa.Table], *, schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of BLOCK rows, the columns as `schema` orders and types them."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        table = as_declared(table, schema)
        held.append(table)
        rows += table.num_rows
        if rows < BLOCK:
            continue
        joined = pa.concat_tables(held).combine_chunks()
        whole = rows // BLOCK * BLOCK
        yield from (joined.slice(at, BLOCK) for at in range(0, whole, BLOCK))
        held, rows = [joined.slice(whole)], rows - whole
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def as_declared(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and of its types."""
    for name in schema.names:
        if name not in table.column_names:
            raise UserError(f"builder: column {name!r} is declared but the table has {', '.join(table.column_names)}")
    table = table.select(schema.names).replace_schema_metadata(None)
    return table if table.schema.equals(schema) else table.cast(schema)


def example(table: pa.Table) -> dict:
    """A block as numpy arrays."""
    out: dict = {}
    for field in table.schema:
        values = table[field.name].combine_chunks()
        if pa.types.is_fixed_size_list(field.type):
            array = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
            out[field.name] = array.reshape(len(values), field.type.list_size)
        elif is_list(field.type):
            lengths = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
            out[field.name] = {"values": _flat(values.flatten()), "length": lengths}
        else:
            out[field.name] = _flat(values)
    return out


def _flat(values: pa.Array) -> np.ndarray:
    if is_text(values.type):
        values = values.cast(pa.large_binary())
    return values.to_numpy(zero_copy_only=False)


def columns(block: dict, *, text) -> dict[str, pa.Array]:
    """An example read back as Arrow columns; `text` turns bytes into strings where they are."""
    out = {}
    for name, value in block.items():
        if isinstance(value, dict):
            offsets = np.cumsum([0, *value["length"]], dtype=np.int64)
            out[name] = pa.LargeListArray.from_arrays(pa.array(offsets), _array(value["values"], text))
        elif value.ndim == 2:
            inner = pa.array(value.reshape(-1))
            out[name] = pa.FixedSizeListArray.from_arrays(inner, value.shape[1])
        else:
            out[name] = _array(value, text)
    return out


def _array(values: np.ndarray, text) -> pa.Array:
    return text(list(values)) if values.dtype == object else pa.array(values)
