"""The Parquet rows that a command reads: files, their row groups in spans of about equal size, and their columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError


@dataclass(frozen=True)
class Span:
    """Consecutive row groups of one file: the unit that a killed run repeats."""

    file: Path
    groups: tuple[int, ...]
    start: int  # first row, counted in the file
    rows: int


def parquet_files(path: Path) -> list[Path]:
    """`path` itself, or the Parquet files of a folder or a glob by name."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        base = path.anchor or "."
        found = sorted(p for p in Path(base).glob(str(path.relative_to(base))) if p.is_file())
        if not found:
            raise UserError(f"{path} does not exist; --input takes a Parquet file, a folder of them or a glob")
        return found
    hidden = (".", "_")
    found = sorted(p for p in path.rglob("*.parquet") if not p.name.startswith(hidden))
    if not found:
        raise UserError(f"{path} holds no *.parquet files")
    return found


def spans(files: Sequence[Path], *, rows: int) -> list[Span]:
    """Row groups in runs of at least `rows` rows."""
    out: list[Span] = []
    for file in files:
        metadata = _open(file).metadata
        start, groups, count = 0, [], 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            count += metadata.row_group(group).num_rows
            if count and (count >= rows or group == metadata.num_row_groups - 1):
                out.append(Span(file=file, groups=tuple(groups), start=start, rows=count))
                start, groups, count = start + count, [], 0
    return out


def check_columns(files: Sequence[Path], *, wanted: Sequence[str], why: str) -> pa.Schema:
    """The wanted columns' schema, the same in every file."""
    first: pa.Schema | None = None
    for file in files:
        schema = _open(file).schema_arrow
        for name in wanted:
            if name not in schema.names:
                near = get_close_matches(name, schema.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(schema.names)}"
                raise UserError(f"{file} has no column {name!r}, which {why}{hint}")
        chosen = pa.schema([schema.field(name) for name in wanted])
        first = first or chosen
        for one, other in zip(first, chosen, strict=True):
            if one.type != other.type:
                raise UserError(f"column {one.name!r} is {one.type} in {files[0]}, but {other.type} in {file}")
    return first if first is not None else pa.schema([])


def batches(span: Span, *, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The span's rows, `rows` at a time but for the last, whatever the size of its row groups."""
    held: list[pa.RecordBatch] = []
    count = 0
    # pre_buffer would hold the whole span in memory.
    with pq.ParquetFile(span.file, pre_buffer=False, buffer_size=1 << 20) as parquet:
        try:
            for batch in parquet.iter_batches(batch_size=rows, row_groups=list(span.groups), columns=list(columns)):
                while batch.num_rows:
                    piece = batch.slice(0, rows - count)
                    batch = batch.slice(piece.num_rows)
                    held.append(piece)
                    count += piece.num_rows
                    if count == rows:
                        yield _joined(held)
                        held, count = [], 0
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{span.file} is damaged after row {span.start}: {_first(error)}") from error
    if held:
        yield _joined(held)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {_first(error)}") from error


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
