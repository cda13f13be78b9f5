"""CSV to Parquet, in constant memory: lines that do not fit are counted and named, the file is written whole or not.

A column is an integer, a number or text by the first span; later values that do not fit set their row aside.

The file is cut into spans of whole lines, and each is a row group. On a cluster its workers parse a span after another
into files beside the target, which are joined here, so that the bytes are the same, and a killed run goes on.
"""

import io
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.cluster import Cluster
from data.csv import BLOCK, INTEGER, NUMBER, PACKED, Lines, as_text, cast, header, repeated, tables, unpacked
from data.errors import UserError
from data.part_files import PartFiles, stamp
from data.rejects import Rejects

ROW = "#row"
"""Column of a part: the number of the row in its span."""
READ, FAULTY = b"adloom.read", b"adloom.faulty"


@dataclass(frozen=True)
class _Span:
    """Rows that fit, their numbers in the span, the faults of the others, and how many rows there were in all."""

    table: pa.Table
    rows: np.ndarray
    rejects: Rejects
    read: int


@dataclass(frozen=True)
class _Reader:
    """How the lines of the file become rows."""

    source: Path
    delimiter: str
    names: tuple[str, ...]
    schema: pa.Schema | None = None

    def read(self, data: bytes) -> _Span | None:
        """The rows of whole lines; None where there are none."""
        malformed, found = Rejects(), Rejects()
        if not data.strip():
            return None
        lines = io.BytesIO(as_text(data))
        parts = list(
            tables(lines, source=self.source, delimiter=self.delimiter, rejects=malformed, names=list(self.names))
        )
        if not parts:
            return None
        rows, table = np.concatenate([r for r, _ in parts]), pa.concat_tables([t for _, t in parts]).combine_chunks()
        schema = self.schema or pa.schema([(name, guess(table[name])) for name in table.column_names])
        numbered = table.append_column(ROW, pa.array(rows).cast(pa.string()))
        wide = schema.append(pa.field(ROW, pa.int64()))
        good = cast(numbered, schema=wide, file=str(self.source), rows=rows, rejects=found)
        found.merge(malformed)
        read = table.num_rows + malformed.count
        return _Span(good.drop_columns([ROW]), good[ROW].to_numpy(), found, read)


def convert(
    source: str | os.PathLike,
    *,
    target: str | os.PathLike,
    delimiter: str = ",",
    key: str | None = None,
    max_rejects: float = 0.01,
    span: int = BLOCK,
    cluster: Cluster | None = None,
) -> Rejects:
    """Writes `target` and returns what was set aside; rows whose `key` stood in a row before are among it."""
    source, target = Path(source), Path(target)
    _check_delimiter(source, delimiter)
    with Lines(source) as lines:
        reader = _Reader(source, delimiter, tuple(header(lines, delimiter)))
    if key is not None and key not in reader.names:
        raise UserError(f"{source}: no column {key!r}; it has {', '.join(reader.names)}")
    if cluster is None:
        return _join(_here(reader, span=span), target=target, source=source, key=key, max_rejects=max_rejects)
    if source.suffix in PACKED:
        raise UserError(f"{source} is packed and can be read from its start alone; unpack it, or leave --engine out")
    first = next(_here(reader, span=span), None)
    if first is None:
        raise UserError(f"{source}: no rows")
    reader = replace(reader, schema=first.table.schema)
    files = PartFiles(target.with_name(f"{target.name}.parts"), made_from=_account(reader, span=span))
    try:
        _apart(reader, files=files, span=span, cluster=cluster)
        spans = _parts(files, count=_count(source, span), source=source)
        rejects = _join(spans, target=target, source=source, key=key, max_rejects=max_rejects)
    except BaseException:
        files.close()
        raise
    files.remove()
    return rejects


def _join(spans: Iterator[_Span], *, target: Path, source: Path, key: str | None, max_rejects: float) -> Rejects:
    rejects, total, seen = Rejects(), 0, set[object]()
    part = target.with_name(f"{target.name}.part{os.getpid()}")
    writer: pq.ParquetWriter | None = None
    try:
        for one in spans:
            found, table = one.rejects.moved(total), one.table
            if key is not None:
                twice = repeated(table[key], seen)
                at = np.flatnonzero(twice)
                shown = [table[key][int(row)].as_py() for row in at[:10]]
                rows = one.rows[at] + total
                found.add(file=str(source), field=key, why="seen before", rows=rows, values=shown)
                found.count += len(at)
                table = table.filter(pa.array(~twice))
            rejects.merge(found)
            total += one.read
            writer = writer or pq.ParquetWriter(part, table.schema)
            writer.write_table(table)
        if writer is None:
            raise UserError(f"{source}: no rows")
        writer.close()
        writer = None
        rejects.check(total, max_rejects)
        part.replace(target)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
    return rejects


# In this process ---------------------------------------------------------------------------------------------------


def _here(reader: _Reader, *, span: int) -> Iterator[_Span]:
    for data in spans_of(reader.source, size=span):
        found = reader.read(data)
        if found is not None:
            reader = replace(reader, schema=found.table.schema)
            yield found


def spans_of(path: Path, *, size: int) -> Iterator[bytes]:
    """The lines that begin in each `size` bytes of the file, its header left out; the file may be packed."""
    at, number = 0, 0
    with unpacked(path) as file:
        try:
            at = len(file.readline())
            while True:
                number += 1
                data = file.read(max(number * size - at, 0))
                if data and not data.endswith(b"\n"):
                    data += file.readline()
                at += len(data)
                if not data and at < number * size:
                    return
                yield data
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}: broken after {at} bytes ({error}); fetch it again") from error


# On a cluster ------------------------------------------------------------------------------------------------------


def _apart(reader: _Reader, *, files: PartFiles, span: int, cluster: Cluster) -> None:
    todo = [number for number in range(_count(reader.source, span)) if _name(number) not in files]
    with closing(cluster.map(partial(_worker, reader, files=files, span=span), pieces=todo)) as done:
        for _ in done:
            pass


def _worker(reader: _Reader, *, files: PartFiles, span: int) -> Callable[[int], None]:
    def work(number: int) -> None:
        found = reader.read(_span(reader.source, number=number, size=span))
        if found is None:
            assert reader.schema is not None
            found = _Span(reader.schema.empty_table(), np.zeros(0, np.int64), Rejects(), 0)
        if found.rejects.count:
            with files.writing(_name(number, "jsonl")) as part:
                found.rejects.write(part)
        counts = {READ: str(found.read).encode(), FAULTY: str(found.rejects.count).encode()}
        table = found.table.append_column(ROW, pa.array(found.rows)).replace_schema_metadata(counts)
        with files.writing(_name(number)) as part, pa.ipc.new_file(part, table.schema) as writer:  # last: it is done
            writer.write_table(table)

    return work


def _parts(files: PartFiles, *, count: int, source: Path) -> Iterator[_Span]:
    for number in range(count):
        with pa.ipc.open_file(files.path(_name(number))) as file:
            table = file.read_all().combine_chunks()
        counts = table.schema.metadata
        faulty = int(counts[FAULTY])
        rejects = Rejects.read(files.path(_name(number, "jsonl")), count=faulty) if faulty else Rejects()
        rows = table[ROW].to_numpy()
        plain = table.drop_columns([ROW]).replace_schema_metadata(None)
        if int(counts[READ]):
            yield _Span(plain, rows, rejects, int(counts[READ]))


def _span(path: Path, *, number: int, size: int) -> bytes:
    """What `spans_of` gives as its span `number`, without those before it."""
    with path.open("rb") as file:
        start = max(_line_from(file, number * size), _header(file))
        end = _line_from(file, (number + 1) * size)
        file.seek(start)
        return file.read(max(end - start, 0))


def _line_from(file: Any, at: int) -> int:
    """The first line that begins at `at` or behind it."""
    if at:
        file.seek(at - 1)
        file.readline()
    return file.tell() if at else 0


def _header(file: Any) -> int:
    file.seek(0)
    return len(file.readline())


def _count(path: Path, size: int) -> int:
    return max(1, -(-path.stat().st_size // size))


def _name(number: int, kind: str = "arrow") -> str:
    return f"part-{number:05d}.{kind}"


def _account(reader: _Reader, *, span: int) -> Mapping[str, Any]:
    assert reader.schema is not None
    types = [[field.name, str(field.type)] for field in reader.schema]
    file = [str(reader.source.resolve()), *stamp(reader.source)]
    return {"file": file, "delimiter": reader.delimiter, "columns": types, "span": span, "version": 1}


# What the columns are ----------------------------------------------------------------------------------------------


def guess(values: pa.ChunkedArray) -> pa.DataType:
    """Integer or number where all but one in a hundred values are."""
    known = max(1, len(values) - values.null_count)
    for pattern, kind in ((INTEGER, pa.int64()), (NUMBER, pa.float64())):
        fit = pc.sum(pc.match_substring_regex(values, pattern)).as_py() or 0
        if 0 < fit >= 0.99 * known:
            return kind
    return pa.string()


def _check_delimiter(source: Path, delimiter: str) -> None:
    with Lines(source) as lines:
        head = lines.read(1 << 16).split(b"\n", 1)[0].decode("utf-8", "replace")
    if delimiter not in head:
        other = max(",\t;|^", key=head.count)
        if head.count(other):
            raise UserError(
                f"{source}: the header has no {delimiter!r} but {head.count(other)} {other!r}: set delimiter"
            )
