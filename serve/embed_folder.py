"""Vectors of items into a folder of shards: new and changed items alone are computed, and a killed run goes on.

The folder holds what the input holds, in its order: of an id that stands there twice the first row stays, ids that are
gone are dropped. Shards are named by their content and manifest.json is replaced last, so that the folder is at any
moment one whole version. `vectors.parts` beside it holds what a killed run has done; the same call goes on there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.features import Features
from data.manifest import MANIFEST, digest, read_json, write_manifest
from data.vector_shards import OURS, Format, schema, write_shards
from serve import arrow
from serve.changed import Changed, Missing
from serve.forward import Forward
from serve.inputs import Input
from serve.known import Known, id_keys, plain_ids, unpacked
from serve.parts import Parts
from serve.progress import Say, to_stderr
from serve.score import Elsewhere, Job, Tally

SCHEME = 1
"""Of the fingerprints: raise it when equal rows would get others."""
SPAN_ROWS = 1 << 14
"""About how many rows a killed run repeats at most."""
SHARD_ROWS = 1 << 16
RETRY = "go on with a larger --max-rejects"


@dataclass(frozen=True)
class Embedded:
    """What a run found and did: `kept` vectors were copied, `changed` ones computed anew, `removed` ids are gone."""

    rows: int
    dim: int
    new: int
    changed: int
    kept: int
    removed: int
    repeated: int
    rejected: int
    rejects: Path | None


@dataclass(frozen=True)
class Work:
    """What a run compares and computes; `account` says what of, wherever it is computed."""

    made: dict[str, Any]
    known: Known
    changed: Changed
    account: dict[str, Any]


class _Job(Job):
    doing, retry = "embedding into", RETRY


def embed_folder(
    forward: Forward,
    *,
    model: str,
    outputs: Sequence[str],
    rows: Input,
    id: str,
    features: Features,
    output: Path,
    format: Format = "parquet",
    batch: int,
    missing: Missing = "reject",
    max_rejects: float = 0.01,
    span_rows: int = SPAN_ROWS,
    shard_rows: int = SHARD_ROWS,
    elsewhere: Elsewhere | None = None,
    say: Say | None = None,
) -> Embedded:
    """`forward` gives one output "vector" for the inputs of `rows`, whose carried column `id` names the items."""
    work = prepare(
        forward,
        model=model,
        outputs=outputs,
        rows=rows,
        id=id,
        features=features,
        output=output,
        batch=batch,
        missing=missing,
        span_rows=span_rows,
    )
    made, known, changed = work.made, work.known, work.changed
    if known.before is not None and not known.reusable:
        (say or to_stderr)(f"{output} holds vectors made otherwise (model {known.before}): all items are embedded anew")
    columns = pa.schema([*changed.carried, *arrow.schema(forward.outputs())])
    begun = Parts.begun(output, made_from=work.account)
    parts = Parts(output, made_from=work.account, schema=columns, resume=begun)
    try:
        spans = changed.spans(rows=span_rows)
        total = sum(span.rows for span in spans)
        job = _Job(forward, rows=changed, parts=parts, batch=batch, elsewhere=elsewhere)
        rejected = job.run(spans, total=total, max_rejects=max_rejects, say=say)
        dim = forward.outputs()["vector"][0][0]
        table = _Table(parts, count=len(spans), known=known)
        stream = _Stream(table, spans=spans, dim=dim)
        layout = schema(changed.id_type, dim=dim, model=model)
        output.mkdir(parents=True, exist_ok=True)
        shards = write_shards(output, batches=stream.batches(layout), schema=layout, format=format, rows=shard_rows)
        tally = Tally(total=total, allowed=max_rejects, retry=RETRY, rows=rejected)
        tally.add(stream.faults)
        parts.put_rejects(len(spans), more=[*stream.faults, *stream.repeats])
        found = table.figures(rejected=tally.rows)
        _commit(output, shards=shards, about={**made, "id": id, "format": format, "dim": dim, "rows": found["rows"]})
        parts.drop()
    finally:
        parts.close()
    return Embedded(**found, dim=dim, rejects=parts.rejects_path if parts.rejects_path.exists() else None)


def prepare(
    forward: Forward,
    *,
    model: str,
    outputs: Sequence[str],
    rows: Input,
    id: str,
    features: Features,
    output: Path,
    batch: int,
    missing: Missing = "reject",
    span_rows: int = SPAN_ROWS,
) -> Work:
    """Opens the folder `output` as it stands, and the rows that it lacks."""
    id_type = plain_ids(pa.nulls(0, rows.carried.field(id).type), name=id).type
    made = {"kind": "vectors", "model": model, "outputs": list(outputs), "scheme": SCHEME, "id_type": str(id_type)}
    known = Known(output, made=made)
    changed = Changed(rows, id=id, features=features, inputs=forward.inputs, known=known, missing=missing)
    account = {**made, "batch": batch, "span_rows": span_rows, "known": known.digest, **changed.made_from()}
    return Work(made, known, changed, account)


class _Table:
    """Every row of all parts, without the vectors: which are used, and where those that are known lie."""

    def __init__(self, parts: Parts, *, count: int, known: Known):
        self.parts, self.count, self.known = parts, count, known
        ids, prints, good = [], [], []
        for index in range(count):
            for batch in parts.read(index):
                column = batch["fingerprint"]
                ids.append(id_keys(batch["id"]))
                prints.append(unpacked(column))
                good.append(column.is_valid().to_numpy(zero_copy_only=False))
        keys = np.concatenate([np.zeros(0, np.uint64), *ids])
        print_ = np.concatenate([np.zeros((0, 2), np.uint64), *prints])
        at = np.flatnonzero(np.concatenate([np.zeros(0, bool), *good]))
        _, first, group = np.unique(keys[at], return_index=True, return_inverse=True)
        self.used = np.zeros(len(keys), bool)
        self.used[at[first]] = True
        self.differs = np.zeros(len(keys), bool)
        self.differs[at] = (print_[at] != print_[at][first][group]).any(axis=1)
        self.repeated = len(at) - len(first)
        self.where = np.full(len(keys), -1)
        self.where[self.used], there = known.find(keys[self.used], print_[self.used])
        self.had = np.zeros(len(keys), bool)
        self.had[self.used] = there

    def figures(self, *, rejected: int) -> dict[str, int]:
        rows, had = int(self.used.sum()), int((self.had & self.used).sum())
        kept = int((self.where[self.used] >= 0).sum())
        return {
            "rows": rows,
            "new": rows - had,
            "changed": had - kept,
            "kept": kept,
            "removed": self.known.rows - had,
            "repeated": self.repeated,
            "rejected": rejected,
        }


class _Stream:
    """The rows of the folder, in order, with the vectors that were known; what is wrong with others is gathered."""

    def __init__(self, table: _Table, *, spans: Sequence[Any], dim: int):
        self._table, self._spans, self._dim = table, spans, dim
        self.faults: list[dict[str, Any]] = []
        self.repeats: list[dict[str, Any]] = []

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        at = 0
        for index, span in enumerate(self._spans):
            file = str(getattr(span, "file", ""))
            for batch in self._table.parts.read(index):
                rows = slice(at, at + batch.num_rows)
                at = rows.stop
                yield self._batch(batch, rows=rows, file=file, schema=schema)

    def _batch(self, batch: pa.RecordBatch, *, rows: slice, file: str, schema: pa.Schema) -> pa.RecordBatch:
        table = self._table
        vectors = np.zeros((batch.num_rows, self._dim), np.float32)
        fresh = batch["vector"].is_valid().to_numpy(zero_copy_only=False)
        computed = batch["vector"].drop_null()
        vectors[fresh] = computed.flatten().to_numpy(zero_copy_only=False).reshape(len(computed), self._dim)
        copied = np.flatnonzero(table.used[rows] & ~fresh)
        if len(copied):
            vectors[copied] = table.known.vectors(table.where[rows][copied])
        finite = np.isfinite(vectors).all(axis=1)
        number = batch["row"].to_numpy()
        for mask, why, into in (
            (table.used[rows] & ~finite, "the model's vector is not finite", self.faults),
            (table.differs[rows], "the id stands in an earlier row with other content; that one stays", self.repeats),
        ):
            for i in np.flatnonzero(mask):
                line = {"file": file, "row": int(number[i]), "field": "id", "why": why}
                into.append({**line, "value": str(batch["id"][int(i)].as_py())[:80]})
        table.used[rows] &= finite
        chosen = np.flatnonzero(table.used[rows])
        taken = batch.take(pa.array(chosen))
        vectors = vectors[chosen]
        columns = [
            taken["id"],
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self._dim),
            pa.array(np.linalg.norm(vectors.astype(np.float64), axis=1).astype(np.float32)),
            taken["fingerprint"],
        ]
        return pa.record_batch(columns, schema=schema)


def _commit(output: Path, *, shards: Mapping[str, tuple[int, str]], about: Mapping[str, Any]) -> None:
    """Names the new version's shards in the manifest, then removes others, of the last version or of a killed run."""
    files = {name: checksum for name, (_, checksum) in shards.items()}
    listed = [{"file": name, "rows": count} for name, (count, _) in shards.items()]
    before = output / MANIFEST
    whole = {**about, "shards": listed, "digest": digest(files), "files": files}
    if not before.is_file() or read_json(before) != whole:
        write_manifest(output, files=files, **about, shards=listed)
    for path in output.iterdir():
        if OURS.fullmatch(path.name) and path.name not in files:
            path.unlink()
