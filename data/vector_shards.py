"""Shards of a folder of vectors: rows of {id, vector, norm, fingerprint} as Parquet, or as ArrayRecord in blocks.

A record of an ArrayRecord shard is an Arrow stream with up to BLOCK rows, so that a reader needs no declaration.
A shard is named by its content: a new version of the folder never writes over a file that the last one lists.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python import array_record_module

from data.errors import UserError
from data.manifest import sha256

Format = Literal["parquet", "arrayrecord"]
ENDINGS: dict[str, Format] = {".parquet": "parquet", ".array_record": "arrayrecord"}

MODEL = b"adloom.model"
BLOCK = 256
FINGERPRINT_BYTES = 16
OURS = re.compile(r"\.?part-\d{5}(-[0-9a-f]{12})?\.(parquet|array_record)|\.manifest\.json\.\d+\.part")
"""Names of shards, and of what a killed run was writing."""


def schema(id: pa.DataType, *, dim: int, model: str) -> pa.Schema:
    fields = [
        ("id", id),
        ("vector", pa.list_(pa.float32(), dim)),
        ("norm", pa.float32()),
        ("fingerprint", pa.binary(FINGERPRINT_BYTES)),
    ]
    return pa.schema(fields, metadata={MODEL: model.encode()})


def write_shards(
    folder: Path, *, batches: Iterable[pa.RecordBatch], schema: pa.Schema, format: Format, rows: int
) -> dict[str, tuple[int, str]]:
    """Name to (rows, checksum) of shards with `rows` rows each but for the last; each appears when it is whole."""
    ending = next(ending for ending, kind in ENDINGS.items() if kind == format)
    written: dict[str, tuple[int, str]] = {}
    for number, table in enumerate(_tables(batches, schema=schema, rows=rows)):
        scratch = folder / f".part-{number:05d}{ending}"
        _WRITERS[format](scratch, table)
        checksum = sha256(scratch)
        name = f"part-{number:05d}-{checksum[:12]}{ending}"
        scratch.replace(folder / name)
        written[name] = (len(table), checksum)
    return written


def read_shard(path: Path, *, columns: Sequence[str]) -> pa.Table:
    """Some columns of a shard, or of any Parquet file that has them."""
    if path.suffix == ".array_record":
        return _read_records(path).select(list(columns))
    return pq.read_table(path, columns=list(columns))


def _tables(batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while batch.num_rows:
            piece = batch.slice(0, rows - count)
            batch = batch.slice(piece.num_rows)
            held.append(piece)
            count += piece.num_rows
            if count == rows:
                yield pa.Table.from_batches(held, schema=schema)
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held, schema=schema)


def _write_parquet(path: Path, table: pa.Table) -> None:
    # One chunk a column and no dictionaries: equal rows give equal bytes, however they came.
    pq.write_table(table.combine_chunks(), path, compression="zstd", use_dictionary=False)


def _write_records(path: Path, table: pa.Table) -> None:
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    try:
        for start in range(0, len(table), BLOCK):
            sink = pa.BufferOutputStream()
            block = table.slice(start, BLOCK).combine_chunks()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(block)
            writer.write(sink.getvalue().to_pybytes())
    finally:
        writer.close()


def _read_records(path: Path) -> pa.Table:
    try:
        reader = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
        try:
            parts = [pa.ipc.open_stream(record).read_all() for record in reader.read_all()]
        finally:
            reader.close()
    except (RuntimeError, ValueError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is no shard of vectors: {str(error).splitlines()[0][:160]}") from error
    return pa.concat_tables(parts)


_WRITERS: dict[str, Any] = {"parquet": _write_parquet, "arrayrecord": _write_records}
