"""Single values and lists of a release's files: what fits its type and what does not."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.csv import INTEGER, NUMBER


def json_object(line: str, parse: Callable[[str], dict]) -> tuple[dict | None, str]:
    try:
        row = parse(line)
    except (ValueError, SyntaxError, RecursionError):
        return None, "not UTF-8" if line == "\ufffd" else "not JSON"
    return (row, "") if isinstance(row, dict) else (None, "not an object")


def fits(value, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def number_lists(values: pa.Array, inner: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Lists of strings as lists of numbers, and which rows hold something else (they become empty)."""
    pattern = INTEGER if pa.types.is_integer(inner) else NUMBER
    flat = values.flatten()
    wrong = ~pc.match_substring_regex(flat, pattern).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    bad = np.zeros(len(values), bool)
    bad[np.repeat(np.arange(len(values)), lengths)[wrong]] = True
    clean = pc.if_else(pa.array(~wrong), pc.utf8_trim_whitespace(flat), pa.scalar("0"))
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, clean.cast(inner)), bad
