"""What `python -m serve index` does, for the command line and for pipelines alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data import vectors as vector_files
from data.errors import UserError
from serve.commands import embed_source
from serve.files import staged
from serve.index import store
from serve.index.attributes import read_attributes
from serve.index.base import Metric
from serve.index.build import Engines, build, build_live
from serve.index.live import LiveIndex
from serve.index.open import open_index
from serve.index.where import Where
from serve.progress import Say
from serve.signature import Step

BATCH = 1024


def index_vectors(
    vectors: Path,
    *,
    output: Path,
    metric: Metric = "dot",
    engine: Engines = "exact",
    recall: float | None = None,
    queries: Path | None = None,
    attributes: Path | None = None,
    id: str = "id",
    threads: int = 0,
    say: Say | None = None,
) -> dict[str, Any]:
    """Builds the index of a file or folder that `embed` wrote."""
    ids, rows, model = _read(vectors)
    asked = None if queries is None else _read(queries, width=rows.shape[1])[1]
    columns = None
    if attributes is not None:
        columns, without, foreign = read_attributes(attributes, ids=ids, id=id)
        if say is not None and (without or foreign):
            say(f"{without:,} items have no row in {attributes}, {foreign:,} rows there are of other items")
    common: dict[str, Any] = {
        "ids": ids,
        "metric": metric,
        "model": model,
        "recall": recall,
        "queries": asked,
        "attributes": columns,
        "threads": threads,
    }
    if engine == "live":
        with build_live(rows, merge_by_itself=False, **common) as live:
            live.save(output)
            made = live.made
    else:
        index = build(rows, engine=engine, **common)
        index.save(output)
        made = index.made
    figures = {"rows": len(ids), "dim": rows.shape[1], "engine": made["engine"], "why": made["why"]}
    return figures | {f"recall@{k}": value for k, value in made["recall"]["at"].items()}


def index_source(
    workdir: Path, *, source: str, output: Path, step: Step = "best", row_id: str = "item", **how: Any
) -> dict[str, Any]:
    """Embeds a source that the workdir's experiment declares and builds its index."""
    with staged(output.parent) as work:
        vectors = work / "vectors.parquet"
        embed_source(workdir, source=source, output=vectors, step=step, id=row_id)
        return index_vectors(vectors, output=output, **how)


def change_index(
    path: Path,
    *,
    vectors: Path | None = None,
    attributes: Path | None = None,
    id: str = "id",
    only_new: bool = False,
    gone: Sequence[str] = (),
) -> dict[str, int]:
    """Adds, replaces and deletes; the log has it before this returns, and a merge that is due is made."""
    with open_live(path) as index:
        done = {"added": 0, "replaced": 0, "deleted": 0, "unknown": 0}
        if vectors is not None:
            ids, rows, model = _read(vectors, width=index.dim)
            if model != index.model:
                raise UserError(f"{vectors} holds vectors of model {model!r}, {path} those of {index.model!r}")
            values = None
            if attributes is not None:
                values = read_attributes(attributes, ids=ids, id=id)[0].table()
            upserted = (index.add if only_new else index.upsert)(ids, rows, attributes=values)
            done |= {"added": upserted.added, "replaced": upserted.replaced}
        if gone:
            deleted = index.delete(index.read_ids(gone))
            done |= {"deleted": deleted.deleted, "unknown": deleted.unknown}
        return done | {"rows": len(index)}


def open_live(path: Path, *, merge_by_itself: bool = True) -> LiveIndex:
    """For writing; each update waits for the disk."""
    index = open_index(path, write=True, sync=True, merge_by_itself=merge_by_itself)
    if not isinstance(index, LiveIndex):  # open_index refuses others
        raise UserError(f"{path} stays as it was built; build it with --engine live to change it")
    return index


def search_vectors(path: Path, *, queries: Path, k: int, where: Mapping[str, Any] | None = None) -> pa.Table:
    """A row for each that is found: query (an id of the queries), rank from 1, id, score."""
    index = open_index(path)
    names, vectors, _ = _read(queries, width=index.dim)
    parts = []
    for start in range(0, len(names), BATCH):
        some = slice(start, start + BATCH)
        ids, scores = index.search(vectors[some], k=k, where=None if where is None else Where.parse(where))
        line, rank = np.nonzero(scores > -np.inf)
        columns = {"query": names[some][line], "rank": rank + 1, "id": ids[line, rank], "score": scores[line, rank]}
        parts.append(pa.table({name: pa.array(column) for name, column in columns.items()}))
    if not parts:
        raise UserError(f"{queries} holds no queries")
    return pa.concat_tables(parts)


def describe(path: Path) -> dict[str, Any]:
    """Of an index whose checksums are right: engine, rows, model, recall measured at build, what waits for a merge."""
    version = store.Version(path, model=None)
    about = {**version.about, "path": str(version.path), "checksums": "ok"}
    attributes = version.attributes(count=0).columns
    about["attributes"] = {name: column.kind for name, column in attributes.items()}
    if about["kind"] == "live":
        index = open_index(path)
        if isinstance(index, LiveIndex):
            about |= index.stats()
    return about


def _read(path: Path, *, width: int | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    if not path.exists():
        raise UserError(f"{path}: there are no vectors; python -m serve embed WORKDIR writes them")
    ids, rows, model = vector_files.read(path)
    if width is not None and rows.shape[1] != width:
        raise UserError(f"{path} holds vectors of {rows.shape[1]}, those of the index have {width}")
    return ids, rows, model
