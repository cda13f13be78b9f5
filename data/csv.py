"""CSV to Parquet, in constant memory: lines that do not fit are counted and named, the file is written whole or not.

A column is an integer, a number or text by the first block; later values that do not fit set their row aside.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from data.columns import nulls
from data.errors import UserError
from data.rejects import Rejects

BLOCK = 1 << 24
INTEGER = r"^\s*[+-]?\d{1,18}\s*$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
NOT_TEXT = "\x01"
"""Stands for a line that is not UTF-8, so that the parser meets it with its number."""


def convert(
    source: str | os.PathLike,
    *,
    target: str | os.PathLike,
    delimiter: str = ",",
    key: str | None = None,
    max_rejects: float = 0.01,
) -> Rejects:
    """Writes `target` and returns what was set aside; rows whose `key` was seen before are among it."""
    source, target = Path(source), Path(target)
    rejects, total = Rejects(), 0
    _check_delimiter(source, delimiter)
    part = target.with_name(f"{target.name}.part{os.getpid()}")
    writer, seen = None, set()
    try:
        with _Lines(source) as lines:
            for first_row, table in _tables(lines, source, delimiter, rejects):
                total = first_row + table.num_rows
                if writer is None:
                    if key is not None and key not in table.column_names:
                        raise UserError(f"{source}: no column {key!r}; it has {', '.join(table.column_names)}")
                    schema = pa.schema([(name, _guess(table[name])) for name in table.column_names])
                    writer = pq.ParquetWriter(part, schema)
                writer.write_table(_cast(table, schema, str(source), first_row, key, seen, rejects))
        if writer is None:
            raise UserError(f"{source}: no rows")
        writer.close()
        writer = None
        rejects.check(total + _malformed(rejects), max_rejects)
        part.replace(target)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
    return rejects


def _malformed(rejects: Rejects) -> int:
    return sum(count for (field, _), count in rejects.counts.items() if field == "line")


def _check_delimiter(source: Path, delimiter: str) -> None:
    with _Lines(source) as lines:
        head = lines.read(1 << 16).split(b"\n", 1)[0].decode("utf-8", "replace")
    if delimiter not in head:
        other = max(",\t;|^", key=head.count)
        if head.count(other):
            raise UserError(
                f"{source}: the header has no {delimiter!r} but {head.count(other)} {other!r}: set delimiter"
            )


class _Lines:
    """The bytes of a file, plain or gzip, with lines that are not UTF-8 replaced by a mark."""

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        self._file = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 - closed by close
        self._left = b""
        self._ready = b""
        self._read = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        while len(self._ready) < size or size < 0:
            try:
                data = self._file.read(BLOCK)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UserError(f"{self.path}: broken after {self._read} bytes ({error}); fetch it again") from error
            self._read += len(data)
            whole, newline, left = (self._left + data).rpartition(b"\n")
            if not data:
                whole, newline, left = self._left, b"", b""
            self._ready += _as_text(whole) + newline
            self._left = left
            if not data:
                break
        out, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
        return out

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_text(data: bytes) -> bytes:
    try:
        data.decode()
        return data
    except UnicodeDecodeError:
        return b"\n".join(_line(line) for line in data.split(b"\n"))


def _line(line: bytes) -> bytes:
    try:
        line.decode()
        return line
    except UnicodeDecodeError:
        return NOT_TEXT.encode()


def _tables(lines: _Lines, source: Path, delimiter: str, rejects: Rejects) -> Iterator[tuple[int, pa.Table]]:
    """Blocks of text columns with the number of their first row."""
    bad: list[tuple[str, int]] = []

    def malformed(row: pa.csv.InvalidRow) -> str:
        why = "not UTF-8" if row.text == NOT_TEXT else f"{row.actual_columns} fields, expected {row.expected_columns}"
        bad.append((why, row.number or 0))
        return "skip"

    try:
        header = lines.read(1 << 20)
        names = header.split(b"\n", 1)[0].decode().strip("\r\ufeff").split(delimiter)
        names = [name.strip().strip('"') for name in names]
        lines._ready = header + lines._ready
        reader = pa.csv.open_csv(
            pa.PythonFile(lines, mode="r"),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=malformed),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        row = 0
        for batch in reader:
            yield row, pa.Table.from_batches([batch])
            row += batch.num_rows
    except pa.ArrowInvalid as error:
        raise UserError(f"{source}: {str(error).splitlines()[0]}") from error
    for why in sorted({why for why, _ in bad}):
        rows = np.array([number for reason, number in bad if reason == why])
        rejects.add(file=str(source), field="line", why=why, rows=rows)
    rejects.count += len(bad)


def _guess(values: pa.ChunkedArray) -> pa.DataType:
    """Integer or number where all but one in a hundred values are."""
    known = max(1, len(values) - values.null_count)
    for pattern, kind in ((INTEGER, pa.int64()), (NUMBER, pa.float64())):
        fit = pc.sum(pc.match_substring_regex(values, pattern)).as_py() or 0
        if 0 < fit >= 0.99 * known:
            return kind
    return pa.string()


def _cast(
    table: pa.Table, schema: pa.Schema, file: str, first_row: int, key: str | None, seen: set, rejects: Rejects
) -> pa.Table:
    bad = np.zeros(table.num_rows, bool)
    columns = []
    for field in schema:
        values = table[field.name].combine_chunks()
        if field.type != pa.string():
            pattern = INTEGER if field.type == pa.int64() else NUMBER
            fits = pc.fill_null(pc.match_substring_regex(values, pattern), False)
            wrong = ~fits.to_numpy(zero_copy_only=False) & ~nulls(values)
            rows = np.flatnonzero(wrong)
            shown = [values[int(row)].as_py() for row in rows[:10]]
            rejects.add(file=file, field=field.name, why=f"no {field.type}", rows=rows + first_row, values=shown)
            bad |= wrong
            clean = pc.if_else(fits, pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+"), pa.scalar(None, pa.string()))
            values = clean.cast(field.type)
        columns.append(values)
    if key is not None:
        values = table[key].to_pylist()
        twice = np.zeros(len(values), bool)
        for row, value in enumerate(values):
            twice[row] = value in seen
            seen.add(value)
        rows = np.flatnonzero(twice)
        shown = [values[row] for row in rows[:10]]
        rejects.add(file=file, field=key, why="seen before", rows=rows + first_row, values=shown)
        bad |= twice
    rejects.count += int(bad.sum())
    return pa.table(columns, schema=schema).filter(pa.array(~bad))
