"""What lies in a folder of Parquet, and the feature file that it suggests.

One aggregate query per column over all rows for counts, and a sample for leaks; both run in duckdb's memory limit.
"""

import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from data.cluster import Cluster
from data.columns import is_bytes, is_list, is_number, is_text
from data.parquet import check_schemas, expand

SAMPLE = 200_000
LABELS = ("label", "click", "clicked", "target", "y", "is_click", "conversion", "converted", "buy", "purchase", "like")
TIMES = ("time", "timestamp", "ts", "date", "datetime", "unix", "event_time")


@dataclass
class Column:
    name: str
    type: pa.DataType
    nulls: float = 0.0
    """Share of rows."""
    distinct: int = 0
    low: Any = None
    high: Any = None
    mean: float = 0.0
    std: float = 0.0
    top: float = 0.0
    """Share of the most frequent value, in the sample."""
    length: int = 0
    """95th percentile of the lengths of lists and strings."""
    warnings: list[str] = field(default_factory=list)

    @property
    def inner(self) -> pa.DataType:
        return self.type.value_type if is_list(self.type) or pa.types.is_dictionary(self.type) else self.type


@dataclass
class Stats:
    path: str
    files: int
    rows: int
    columns: list[Column]
    label: str | None
    time: str | None
    sample: pa.Table


def measure(
    path: str,
    *,
    label: str | None = None,
    memory: str = "1GB",
    threads: int = 2,
    cluster: Cluster | None = None,
) -> Stats:
    """Counts all rows of the Parquet files at `path` and looks for leaks against `label`.

    On a `cluster` its workers take a column each.
    """
    files = [str(file) for file in expand(path)]
    schema = pq.read_schema(files[0])
    check_schemas([Path(file) for file in files], columns=schema.names)
    with duckdb.connect(config={"memory_limit": memory, "threads": threads}) as connection:
        rows = connection.sql("select count(*) from read_parquet($files)", params={"files": files}).fetchall()[0][0]
        if cluster is None:
            columns = [_column(connection, files, schema.field(name), rows) for name in schema.names]
        else:
            columns = _apart(schema, files=files, rows=rows, memory=memory, cluster=cluster)
        sample = connection.sql(
            f"select * from read_parquet($files) using sample reservoir({SAMPLE} rows) repeatable (1)",
            params={"files": files},
        ).to_arrow_table()
    for column in columns:
        if sample.num_rows and not is_list(column.type) and not is_bytes(column.type):
            column.top = max(pc.value_counts(sample[column.name]).field("counts").to_pylist()) / sample.num_rows
    stats = Stats(path, len(files), rows, columns, label or _label(columns), _time(columns), sample)
    warn(stats)
    return stats


def _apart(schema: pa.Schema, *, files: list[str], rows: int, memory: str, cluster: Cluster) -> list[Column]:
    make = partial(_measurer, schema, files=files, rows=rows, memory=memory)
    with closing(cluster.map(make, pieces=schema.names)) as done:
        found = dict(done)
    return [found[name] for name in schema.names]


def _measurer(schema: pa.Schema, *, files: list[str], rows: int, memory: str) -> Callable[[str], Column]:
    """Runs in a worker."""
    connection = duckdb.connect(config={"memory_limit": memory, "threads": 1})
    return lambda name: _column(connection, files, schema.field(name), rows)


def _column(connection: duckdb.DuckDBPyConnection, files: list[str], declared: pa.Field, rows: int) -> Column:
    column = Column(declared.name, declared.type)
    quoted = '"' + column.name.replace('"', '""') + '"'
    wanted = {"nulls": f"count(*) filter ({quoted} is null)"}
    relation = "read_parquet($files)"
    if is_list(column.type):
        wanted["length"] = f"quantile_disc(len({quoted}), 0.95)"
    elif is_text(column.inner) or is_bytes(column.inner):
        wanted["length"] = f"quantile_disc(octet_length({quoted}::blob), 0.95)"
    wanted |= _values(column, quoted) if not is_list(column.type) else {}
    found = _ask(connection, files, wanted, relation)
    if is_list(column.type) and not is_list(column.inner):
        inner = f"(select unnest({quoted}) as v from read_parquet($files))"
        found |= _ask(connection, files, _values(column, "v"), inner)
    column.nulls = found["nulls"] / max(rows, 1)
    for name in ("distinct", "length"):
        setattr(column, name, int(found.get(name) or 0))
    for name in ("mean", "std"):
        setattr(column, name, float(found.get(name) or 0))
    column.low, column.high = found.get("low"), found.get("high")
    return column


def _values(column: Column, value: str) -> dict[str, str]:
    kind = column.inner
    wanted = {"distinct": f"approx_count_distinct({value})"}
    if is_number(kind) or is_text(kind):
        wanted |= {"low": f"min({value})", "high": f"max({value})"}
    if is_number(kind) and not pa.types.is_boolean(kind):
        finite = f"case when isfinite({value}::double) then {value}::double end"
        wanted |= {"mean": f"avg({finite})", "std": f"stddev_pop({finite})"}
    return wanted


def _ask(connection: duckdb.DuckDBPyConnection, files: list[str], wanted: dict[str, str], relation: str) -> dict:
    query = "select " + ", ".join(f"{sql} as {name}" for name, sql in wanted.items()) + f" from {relation}"
    return dict(zip(wanted, connection.sql(query, params={"files": files}).fetchall()[0], strict=True))


def is_binary(column: Column) -> bool:
    if pa.types.is_boolean(column.type):
        return True
    return is_number(column.type) and column.low == 0 and column.high == 1 and column.distinct <= 3


def _label(columns: list[Column]) -> str | None:
    binary = [column.name for column in columns if is_binary(column)]
    by_name = [name for want in LABELS for name in binary if name.lower() == want]
    return by_name[0] if by_name else binary[0] if len(binary) == 1 else None


def _time(columns: list[Column]) -> str | None:
    for column in columns:
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return column.name
    named = [
        c.name for c in columns if c.name.lower() in TIMES and is_number(c.type) and not pa.types.is_boolean(c.type)
    ]
    return named[0] if named else None


def warn(stats: Stats) -> None:
    """Columns that give the label or the date away."""
    table = stats.sample
    label = None if stats.label is None else _floats(table, stats.label)
    time = None if stats.time is None else _floats(table, stats.time)
    for column in stats.columns:
        if is_list(column.type) or is_bytes(column.type):
            continue
        key = (pa.types.is_integer(column.type) and column.name != stats.time) or is_text(column.type)
        if key and stats.rows > 1000 and column.distinct > 0.9 * stats.rows:
            column.warnings.append("nearly a value of its own per row: nothing to learn from")
        if label is not None and column.name != stats.label:
            column.warnings += _label_leaks(table, column, label)
        if time is not None and column.name != stats.time and is_number(column.type):
            rank = abs(_correlation(_ranks(_floats(table, column.name)), _ranks(time)))
            if rank > 0.98 and column.distinct > 10:
                column.warnings.append(f"grows with {stats.time} (rank correlation {rank:.3f}): it tells the date")
    if stats.time is not None:
        backwards = int(np.count_nonzero(np.diff(_floats(_first(stats, stats.time), stats.time)) < 0))
        if backwards:
            _named(stats, stats.time).warnings.append(f"out of order {backwards} times in the first row group")
    if stats.label is not None and label is not None and len(label) > 100 and np.isfinite(label).all():
        ordered = _floats(_first(stats, stats.label), stats.label)
        if len(ordered) > 100 and np.count_nonzero(np.diff(ordered)) == 1:
            _named(stats, stats.label).warnings.append("rows are sorted by the label: shuffle before any split by row")


def _first(stats: Stats, name: str) -> pa.Table:
    with pq.ParquetFile(expand(stats.path)[0]) as file:
        return file.read_row_group(0, columns=[name]) if file.num_row_groups else file.read(columns=[name])


def _label_leaks(table: pa.Table, column: Column, label: np.ndarray) -> list[str]:
    known = np.isfinite(label)
    if known.sum() < 50 or len(np.unique(label[known])) < 2:
        return []
    missing = np.array(table[column.name].is_null())[known]
    label = label[known]
    found = []
    base = max(label.mean(), 1 - label.mean())
    if 0 < missing.mean() < 1 and _purity(missing.astype(np.int64), label) > 0.999 > base:
        found.append("is null exactly where the label says so: known only after the event")
    if is_number(column.type):
        values = _floats(table, column.name)[known]
        if np.array_equal(values, label):
            return ["equals the label"]
        area = _auc(np.where(np.isfinite(values), values, -np.inf), label)
        if max(area, 1 - area) > 0.98 and not found:
            found.append(f"alone orders the label almost perfectly (AUC {max(area, 1 - area):.4f})")
    codes = table[column.name].combine_chunks()
    if is_text(column.type) or pa.types.is_integer(column.type):
        codes = np.array(codes.dictionary_encode().indices.fill_null(-1))[known]
        if len(np.unique(codes)) < len(codes) / 10 and _purity(codes, label) > 0.999 > base and not found:
            found.append("predicts the label perfectly")
    return found


def _purity(codes: np.ndarray, label: np.ndarray) -> float:
    """Share of rows that the majority label of their own value gets right."""
    _, codes = np.unique(codes, return_inverse=True)
    ones, all_ = np.bincount(codes, weights=label), np.bincount(codes)
    return float(np.maximum(ones, all_ - ones).sum() / len(label))


def _auc(score: np.ndarray, label: np.ndarray) -> float:
    ranks = _ranks(score)
    ones = label.sum()
    return float((ranks[label == 1].sum() - ones * (ones - 1) / 2) / max(ones * (len(label) - ones), 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """0-based, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return 0.0 if a.std() == 0 or b.std() == 0 else float(np.corrcoef(a, b)[0, 1])


def _floats(table: pa.Table, name: str) -> np.ndarray:
    values = table[name].combine_chunks()
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us")).cast(pa.int64())
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    return values.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)


def _named(stats: Stats, name: str) -> Column:
    return next(column for column in stats.columns if column.name == name)


def picture_size(stats: Stats, name: str) -> tuple[int, int] | None:
    """Height and width of the first picture of a bytes column; None where it holds none."""
    for value in stats.sample[name].slice(0, 20).to_pylist():
        if value:
            try:
                with Image.open(io.BytesIO(value)) as picture:
                    return picture.height, picture.width
            except (UnidentifiedImageError, OSError):
                return None
    return None
