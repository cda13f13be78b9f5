"""Arrow IPC files (Feather 2) read as Parquet files are: a record batch stands for a row group."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".arrow", ".feather", ".ipc")


class ArrowFile:
    def __init__(self, file: Path):
        self._batches = pa.ipc.open_file(pa.memory_map(str(file)))
        self.schema_arrow = self._batches.schema
        self.rows = [self._batches.get_batch(i).num_rows for i in range(self._batches.num_record_batches)]

    def __enter__(self) -> "ArrowFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._batches  # not the map: tables that were read from it may still be in use and keep it alive

    def read_row_group(self, index: int, *, columns: list[str], use_threads: bool = False) -> pa.Table:
        return pa.Table.from_batches([self._batches.get_batch(index).select(columns)])


def block_rows(file: pq.ParquetFile | ArrowFile) -> list[int]:
    """Rows of each block that can be read by itself."""
    if isinstance(file, ArrowFile):
        return file.rows
    return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]


def batches(file: pq.ParquetFile | ArrowFile, *, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
    """All rows, at most `size` at a time, in the memory of one block."""
    for index in range(len(block_rows(file))):
        yield from file.read_row_group(index, columns=columns, use_threads=False).to_batches(max_chunksize=size)
