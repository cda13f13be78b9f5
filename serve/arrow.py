"""Model outputs as Arrow columns, with nulls where a row was rejected."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.errors import UserError
from serve.forward import Inputs


def schema(outputs: Inputs) -> pa.Schema:
    return pa.schema([pa.field(name, _type(shape, dtype)) for name, (shape, dtype) in outputs.items()])


def columns(outputs: Mapping[str, np.ndarray], *, kept: np.ndarray) -> dict[str, pa.Array]:
    """`outputs` has a row for each True of `kept`; the columns have one for each of its elements."""
    return {name: _column(value, kept=kept) for name, value in outputs.items()}


def _type(shape: tuple[int, ...], dtype: np.dtype) -> pa.DataType:
    if not shape:
        return pa.from_numpy_dtype(dtype)
    if len(shape) > 1:
        raise UserError(f"an output of shape (b, {', '.join(map(str, shape))}) does not fit into a table")
    return pa.list_(pa.from_numpy_dtype(dtype), shape[0])


def _column(value: np.ndarray, *, kept: np.ndarray) -> pa.Array:
    full = value
    mask = None
    if not kept.all():
        full = np.zeros((len(kept), *value.shape[1:]), value.dtype)
        full[kept] = value
        mask = ~kept
    if full.ndim == 1:
        return pa.array(full, mask=mask)
    flat = pa.array(np.ascontiguousarray(full).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, full.shape[1], mask=None if mask is None else pa.array(mask))
