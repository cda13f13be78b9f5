"""Arrow columns as numpy arrays, without a Python object per value."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import UserError
from data.features import MISSING

Table: TypeAlias = pa.Table | pa.RecordBatch


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    return any(
        test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    )


def is_key(kind: pa.DataType) -> bool:
    """May be hashed or looked up."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_text(kind) or is_bytes(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def missing_column(name: str, *, columns: Iterable[str], file: str) -> UserError:
    columns = list(columns)
    near = get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns[:20])}"
    return UserError(f"{file}: no column {name!r}; {hint}")


def column(table: Table, name: str, *, file: str) -> pa.Array:
    """The named column as one array."""
    if name not in table.schema.names:
        raise missing_column(name, columns=table.schema.names, file=file)
    found = table.column(name)
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()
        if isinstance(found, pa.ChunkedArray):  # too large for one array of 32-bit offsets
            found = pa.concat_arrays([chunk.cast(_large(chunk.type)) for chunk in found.chunks])
    return found


def _large(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if is_text(kind) else pa.large_binary() if is_bytes(kind) else kind


def nulls(values: pa.Array) -> np.ndarray:
    if not values.null_count:
        return np.zeros(len(values), bool)
    return pc.is_null(values).to_numpy(zero_copy_only=False)


def integers(values: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 values, which of them are missing (null or NaN), and which are no integers. Null becomes 0."""
    missing = nulls(values)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_integer(values.type):
        whole = pc.fill_null(values, 0) if values.null_count else values
        array = whole.to_numpy(zero_copy_only=False)
        wrong = array > np.uint64(np.iinfo(np.int64).max) if array.dtype == np.uint64 else np.zeros(len(array), bool)
        return array.astype(np.int64), missing, wrong
    array = floats(values)[0]
    missing = missing | np.isnan(array)
    array = np.where(missing, 0, array)
    wrong = (array != np.floor(array)) | (np.abs(array) >= 2**63)
    return np.where(wrong, 0, array).astype(np.int64), missing, wrong


def floats(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """float64 values and which of them are null; null becomes NaN."""
    missing = nulls(values)
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan), missing
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    array = (pc.fill_null(values, 0) if values.null_count else values).to_numpy(zero_copy_only=False)
    array = array.astype(np.float64)
    if values.null_count:
        array[missing] = np.nan
    return array, missing


@dataclass(frozen=True)
class Lists:
    """A list column: one flat array of values, and where each row's own lie in it."""

    values: pa.Array
    starts: np.ndarray
    lengths: np.ndarray

    def newest(self, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions in `values` [n, width], which of them hold something, and lengths; the last `width` of each row."""
        kept = np.minimum(self.lengths, width)
        held = np.arange(width) < kept[:, None]
        at = (self.starts + self.lengths - kept)[:, None] + np.arange(width)
        return np.where(held, at, 0), held, kept.astype(np.int32)


def lists(values: pa.Array) -> Lists:
    if pa.types.is_fixed_size_list(values.type):
        size = values.type.list_size
        starts = (np.arange(len(values), dtype=np.int64) + values.offset) * size
        lengths = np.where(nulls(values), 0, size)
    else:
        offsets = values.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        starts = offsets[:-1]
        lengths = np.where(nulls(values), 0, np.diff(offsets))
    return Lists(values.values, starts, lengths)


def split(values: pa.Array, separator: str) -> pa.Array:
    """Strings such as `a^b^c` as lists; an empty string is an empty list."""
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
    return pc.split_pattern(values, separator)


def parse_integers(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Strings as integers, and which of them are not; those become null."""
    good = pc.fill_null(pc.match_substring_regex(values, r"^\s*[+-]?\d{1,18}\s*$"), False)
    bad = ~good.to_numpy(zero_copy_only=False) & ~nulls(values)
    clean = pc.if_else(good, pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+"), pa.scalar(None, values.type))
    return clean.cast(pa.int64()), bad


def through_dictionary(values: pa.DictionaryArray, of: Callable[[pa.Array], np.ndarray]) -> np.ndarray:
    """`of` of the distinct values, spread to all of them; nulls give 0."""
    ids = np.append(of(values.dictionary) if len(values.dictionary) else np.zeros(0, np.int32), np.int32(MISSING))
    codes = values.indices
    if codes.null_count:
        codes = codes.cast(pa.int64()).fill_null(-1)
    return ids[codes.to_numpy(zero_copy_only=False)]


def empty_is_null(values: pa.Array) -> pa.Array:
    """CSV files write a missing string as an empty one."""
    if not is_text(values.type):
        return values
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
