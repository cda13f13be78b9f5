"""Delimited text as Arrow tables, in constant memory: lines and values that do not fit are counted and named."""

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data.columns import nulls
from data.errors import UserError
from data.rejects import Rejects

BLOCK = 1 << 24
PACKED = (".gz", ".bz2")
INTEGER = r"^\s*[+-]?\d{1,18}\s*$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
LONG = "\x1f"
"""Stands for a delimiter of several characters."""
NOT_TEXT = "\x01"
"""Stands for a line that is not UTF-8, so that the parser meets it with its number."""


class Lines:
    """The bytes of a file, plain or gzip, as UTF-8; lines that are not in `encoding` are replaced by a mark."""

    def __init__(self, path: Path, *, encoding: str = "utf-8", delimiter: str = ","):
        self.path, self.encoding = path, encoding
        self.long = delimiter.encode() if len(delimiter) > 1 else b""
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        self._file = unpacked(path)
        self._left = b""
        self._ready = b""
        self._read = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        while len(self._ready) < size or size < 0:
            try:
                data = self._file.read(BLOCK)
            except (EOFError, OSError, zlib.error) as error:
                raise UserError(f"{self.path}: broken after {self._read} bytes ({error}); fetch it again") from error
            self._read += len(data)
            whole, newline, left = (self._left + data).rpartition(b"\n")
            if not data:
                whole, newline, left = self._left, b"", b""
            self._ready += self._text(whole) + newline
            self._left = left
            if not data:
                break
        out, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
        return out

    def _text(self, data: bytes) -> bytes:
        data = as_text(data, self.encoding)
        return data.replace(self.long, LONG.encode()) if self.long else data

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unpacked(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, whether plain, gzip or bzip2."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return bz2.open(path, "rb") if path.suffix == ".bz2" else path.open("rb")


def as_text(data: bytes, encoding: str = "utf-8") -> bytes:
    """Whole lines as UTF-8; those that are not in `encoding` are replaced by a mark."""
    try:
        text = data.decode(encoding)
        return data if encoding == "utf-8" else text.encode()
    except UnicodeDecodeError:
        return b"\n".join(_line(line, encoding) for line in data.split(b"\n"))


def _line(line: bytes, encoding: str) -> bytes:
    try:
        return line.decode(encoding).encode()
    except UnicodeDecodeError:
        return NOT_TEXT.encode()


def tables(
    lines: Lines | io.BytesIO,
    *,
    source: Path,
    delimiter: str,
    rejects: Rejects,
    names: Sequence[str] | None = None,
    quote: str | bool = '"',
    newlines: bool = False,
) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Blocks of text columns, each with the numbers of its rows in the file; `names` where the file has no header.

    `newlines` allows them within quotes; a quote left open then swallows the lines after it.
    """
    bad: list[tuple[int, str]] = []
    head = 1 if names is None else 0

    def malformed(row: pa.csv.InvalidRow) -> str:
        why = "not UTF-8" if row.text == NOT_TEXT else f"{row.actual_columns} fields, expected {row.expected_columns}"
        bad.append(((row.number or 1) - 1 - head, why))
        return "skip"

    delimiter = LONG if len(delimiter) > 1 else delimiter
    try:
        if names is None:
            assert isinstance(lines, Lines)  # whose bytes can be looked at twice
            names = header(lines, delimiter)
        reader = pa.csv.open_csv(
            pa.PythonFile(lines, mode="r"),
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=BLOCK, column_names=list(names), skip_rows=head
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, quote_char=quote, newlines_in_values=newlines, invalid_row_handler=malformed
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        row = 0
        for batch in reader:
            after = np.sort([number for number, _ in bad]).astype(np.int64) - np.arange(len(bad))
            good = np.arange(row, row + batch.num_rows)
            yield good + np.searchsorted(after, good, side="right"), pa.Table.from_batches([batch])
            row += batch.num_rows
    except pa.ArrowInvalid as error:
        raise UserError(f"{source}: {str(error).splitlines()[0]}") from error
    for why in sorted({why for _, why in bad}):
        rows = np.array([number for number, reason in bad if reason == why])
        rejects.add(file=str(source), field="line", why=why, rows=rows)
    rejects.count += len(bad)


def header(lines: Lines, delimiter: str) -> list[str]:
    """The names in the first line, which stays to be read."""
    first = lines.read(1 << 20)
    lines._ready = first + lines._ready
    names = first.split(b"\n", 1)[0].decode().strip("\r\ufeff").split(delimiter)
    return [name.strip().strip('"') for name in names]


def cast(
    table: pa.Table,
    *,
    schema: pa.Schema,
    file: str,
    rows: np.ndarray,
    rejects: Rejects,
    key: str | None = None,
    seen: set[object] | None = None,
) -> pa.Table:
    """Text columns as `schema` says; rows with a value that does not fit, or a `key` in `seen`, are set aside."""
    bad = np.zeros(table.num_rows, bool)
    columns = []
    for field in schema:
        values = table[field.name].combine_chunks()
        if field.type != pa.string():
            pattern = INTEGER if pa.types.is_integer(field.type) else NUMBER
            fits = pc.fill_null(pc.match_substring_regex(values, pattern), False)
            wrong = ~fits.to_numpy(zero_copy_only=False) & ~nulls(values)
            at = np.flatnonzero(wrong)
            shown = [values[int(row)].as_py() for row in at[:10]]
            rejects.add(file=file, field=field.name, why=f"no {field.type}", rows=rows[at], values=shown)
            bad |= wrong
            clean = pc.if_else(fits, pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+"), pa.scalar(None, pa.string()))
            values = clean.cast(field.type)
        columns.append(values)
    if key is not None and seen is not None:
        twice = repeated(table[key], seen)
        at = np.flatnonzero(twice)
        shown = [table[key][int(row)].as_py() for row in at[:10]]
        rejects.add(file=file, field=key, why="seen before", rows=rows[at], values=shown)
        bad |= twice
    rejects.count += int(bad.sum())
    return pa.table(columns, schema=schema).filter(pa.array(~bad))


def repeated(values: pa.ChunkedArray, seen: set[object]) -> np.ndarray:
    """Which values are in `seen` or stood before; all are in it afterwards."""
    twice = np.zeros(len(values), bool)
    for row, value in enumerate(values.to_pylist()):
        twice[row] = value in seen
        seen.add(value)
    return twice
