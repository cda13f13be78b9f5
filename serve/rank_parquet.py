"""A funnel's answers to a file of requests: a row for each item of each page, in the order of the requests.

A request that cannot be answered is named in OUTPUT.rejects.jsonl and has no rows; the output appears when it is whole.
"""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError
from serve.features.store import StoreDown
from serve.funnel import Answer, Funnel, Ranked, Request
from serve.progress import Rows, Say
from serve.score import Tally
from serve.spans import batches, check_columns, parquet_files, spans

OWN = ("candidates", "item", "vector", "k", "shown")
"""Columns that say something of the request and not of the user, unless a part of the funnel reads one as a field."""
SCORES = ("retrieve", "rank", "calibrate", "ecpm", "price")
BATCH = 256


@dataclass(frozen=True)
class Answered:
    requests: int
    rejected: int
    items: int
    seconds: float
    rejects: Path | None


def rank_parquet(
    funnel: Funnel,
    *,
    requests: Path,
    output: Path,
    k: int | None = None,
    where: Mapping[str, Any] | None = None,
    skip: frozenset[str] = frozenset(),
    explain: bool = False,
    id: str | None = None,
    max_rejects: float = 0.01,
    threads: int = 2,
    say: Say | None = None,
) -> Answered:
    """`id` is a column to copy beside each row; without one a request is named by its place among them, from 0."""
    begun = time.perf_counter()
    files = parquet_files(requests)
    names = pq.read_schema(files[0]).names
    own = [name for name in OWN if name in names and name not in funnel.fields]
    fields = [name for name in names if name in funnel.fields]
    columns = list(dict.fromkeys([*fields, *own, *([] if id is None else [id])]))
    declared = check_columns(
        files, wanted=columns, why="the funnel reads" if id is None else "--id or the funnel reads"
    )
    schema = _schema(
        pa.int64() if id is None else declared.field(id).type,
        item=funnel.features.schema.field(funnel.features.id).type,
    )
    make = partial(_request, fields=fields, own=own, k=k, where=where, skip=skip, explain=explain)
    todo = spans(files, rows=1 << 16)
    total = sum(span.rows for span in todo)
    tally = Tally(total=total, allowed=max_rejects, retry="go on with a larger --max-rejects")
    scratch, rejects = output.with_name(f".{output.name}.part"), output.with_name(f"{output.name}.rejects.jsonl")
    output.parent.mkdir(parents=True, exist_ok=True)
    items, at = 0, 0
    with (
        pq.ParquetWriter(scratch, schema) as writer,
        rejects.open("w") as log,
        ThreadPoolExecutor(threads) as pool,
        Rows(f"ranking {output.name}", total=total, say=say) as progress,
    ):
        for span in todo:
            row = span.start
            for batch in batches(span, columns=columns, rows=BATCH):
                asked = batch.to_pylist()
                rows: list[dict[str, Any]] = []
                for number, answer in enumerate(pool.map(partial(_answered, funnel, make), asked)):
                    if isinstance(answer, UserError):
                        line = {"file": str(span.file), "row": row + number, "field": "request", "why": str(answer)}
                        log.write(json.dumps(line) + "\n")
                        tally.add([line])
                    else:
                        named = at + number if id is None else asked[number][id]
                        rows += _rows(answer, request=named)
                items += sum(r["place"] is not None for r in rows)
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                row, at = row + len(asked), at + len(asked)
                progress.advance(len(asked))
    scratch.replace(output)
    if not tally.rows:
        rejects.unlink()
    return Answered(total, tally.rows, items, time.perf_counter() - begun, rejects if tally.rows else None)


def _request(
    row: Mapping[str, Any],
    *,
    fields: list[str],
    own: list[str],
    k: int | None,
    where: Mapping[str, Any] | None,
    skip: frozenset[str],
    explain: bool,
) -> Request:
    given = {name: row[name] for name in own if row[name] is not None}
    if "shown" in given:
        given["shown"] = {by: dict(counts or ()) for by, counts in given["shown"].items()}
    return Request({name: row[name] for name in fields}, **{"k": k, **given}, where=where, skip=skip, explain=explain)


def _answered(funnel: Funnel, make: Any, row: Mapping[str, Any]) -> Answer | UserError:
    """An error of one request is an answer too; a store that is down is none."""
    try:
        return funnel.answer(make(row))
    except StoreDown:
        raise
    except UserError as error:
        return error


def _schema(request: pa.DataType, *, item: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("request", request),
            ("place", pa.int32()),
            ("id", item),
            *((name, pa.float64()) for name in SCORES),
            ("channels", pa.list_(pa.string())),
            ("ranks", pa.list_(pa.int32())),
            ("why", pa.string()),
        ]
    )


def _rows(answer: Answer, *, request: Any) -> Iterator[dict[str, Any]]:
    for place, ranked in enumerate(answer.items):
        yield _row(ranked, request=request, place=place)
    for ranked in answer.dropped:
        yield _row(ranked, request=request, place=None)


def _row(ranked: Ranked, *, request: Any, place: int | None) -> dict[str, Any]:
    return {
        "request": request,
        "place": place,
        "id": ranked.id,
        **{name: ranked.scores.get(name) for name in SCORES},
        "channels": list(ranked.sources),
        "ranks": [source.rank for source in ranked.sources.values()],
        "why": ranked.why,
    }
