"""Tables that become feature stores."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serve.spans import check_columns, parquet_files


def parquet_table(path: Path, *, columns: Sequence[str] = ()) -> pa.Table:
    """All rows of a file, a folder or a glob."""
    files = parquet_files(path)
    names = list(dict.fromkeys(columns)) or pq.read_schema(files[0]).names
    check_columns(files, wanted=names, why="the store needs")
    return pa.concat_tables([pq.read_table(file, columns=names) for file in files])
