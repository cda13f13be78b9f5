"""How often each value stands in Parquet files: one query over all of them, or a file at a time on a cluster.

On a cluster each worker writes the counts of one file after another into a folder that every machine sees, and they are
added up here, so that the result is the same.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.cluster import Cluster
from data.columns import is_list, is_text, missing_column
from data.errors import UserError

Limits = Mapping[str, tuple[int, int | None]]
"""Name to (a value seen less often is left out, at most so many)."""


def count(
    files: Sequence[str],
    *,
    named: Mapping[str, Sequence[str]],
    limits: Limits,
    separator: str | None = None,
    memory: str = "1GB",
    threads: int = 2,
    cluster: Cluster | None = None,
    scratch: Path | None = None,
) -> Iterator[tuple[str, pa.Table]]:
    """(name, its table of value and n) for each of `named`, whose columns are counted together.

    Values come most frequent first where their number is limited, ties by value. On a `cluster`, `scratch` holds the
    counts of each file until this ends.
    """
    import duckdb  # an extra's weight at import, wanted here alone

    values = {name: _values(columns, file=files[0], separator=separator) for name, columns in named.items()}
    counted = {
        name: f"select value, count(*) as n from ({sql}) where value is not null group by value"
        for name, sql in values.items()
    }
    parts = {name: list(files) for name in named}
    try:
        if cluster is not None:
            parts = _apart(counted, files=files, cluster=cluster, scratch=scratch, memory=memory)
            added = "select value, sum(n)::bigint as n from read_parquet($files) group by value"
            counted = dict.fromkeys(named, added)
        with duckdb.connect(config={"memory_limit": memory, "threads": threads}) as connection:
            for name, query in counted.items():
                least, most = limits[name]
                query += " having n >= $n"
                if most is not None:
                    query += f" order by n desc, value limit {int(most)}"
                yield name, connection.sql(query, params={"files": parts[name], "n": least}).to_arrow_table()
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _apart(
    queries: Mapping[str, str], *, files: Sequence[str], cluster: Cluster, scratch: Path | None, memory: str
) -> dict[str, list[str]]:
    """Name to the files of counts that the workers wrote."""
    if scratch is None:
        raise UserError("workers of a cluster count into a folder that all machines see; name the vocabularies' folder")
    scratch.mkdir(parents=True, exist_ok=True)
    make = partial(_counter, dict(queries), files=list(files), scratch=scratch, memory=memory)
    pieces = [(name, number) for name in queries for number in range(len(files))]
    parts: dict[str, list[str]] = {name: [] for name in queries}
    with closing(cluster.map(make, pieces=pieces)) as done:
        for (name, _), path in done:
            parts[name].append(path)
    return parts


def _counter(
    queries: Mapping[str, str], *, files: Sequence[str], scratch: Path, memory: str
) -> Callable[[tuple[str, int]], str]:
    """Runs in a worker: counts one column's values in one file."""
    import duckdb

    connection = duckdb.connect(config={"memory_limit": memory, "threads": 1})

    def work(piece: tuple[str, int]) -> str:
        name, number = piece
        path = scratch / f"{name}-{number:05d}.parquet"
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        pq.write_table(connection.sql(queries[name], params={"files": [files[number]]}).to_arrow_table(), part)
        part.replace(path)
        return str(path)

    return work


def _values(columns: Sequence[str], *, file: str, separator: str | None) -> str:
    """SQL for the values of all columns, one a row; missing is null."""
    schema = pq.read_schema(file)
    kinds = dict(zip(schema.names, schema.types, strict=True))
    for column in columns:
        if column not in kinds:
            raise missing_column(column, columns=kinds, file=file)
    parts = (f"select {_value(c, kinds[c], separator)} as value from read_parquet($files)" for c in columns)
    return " union all ".join(parts)


def _value(column: str, kind: pa.DataType, separator: str | None) -> str:
    quoted = '"' + column.replace('"', '""') + '"'
    if is_list(kind):
        inner, quoted = kind.value_type, f"unnest({quoted})"
    elif is_text(kind) and separator is not None:
        inner, quoted = kind, "unnest(string_split({}, '{}'))".format(quoted, separator.replace("'", "''"))
    else:
        inner = kind
    if pa.types.is_floating(inner) or pa.types.is_decimal(inner):
        return f"try_cast({quoted} as bigint)"
    return f"nullif({quoted}, '')" if is_text(inner) else quoted
