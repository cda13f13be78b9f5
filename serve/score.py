"""Batch scoring: any number of rows in constant memory, in their order, to one Parquet file.

Reading and encoding, the model, and writing each run in a thread of their own, of this process or of workers elsewhere.
A rejected row keeps its place with a null score and is named in OUTPUT.rejects.jsonl. A killed run goes on with
`resume` and ends with the same bytes; the output appears only when it is whole.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data.errors import TooManyRejects, UserError
from serve import arrow
from serve.forward import Forward, Pending
from serve.inputs import Chunk, Input
from serve.parts import Parts, PartWriter
from serve.progress import Rows, Say
from serve.threads import Behind, ahead

BATCH = 8192
SPAN_ROWS = 1 << 19
"""About how many rows a killed run repeats at most."""
SHOWN = 10


class Elsewhere(Protocol):
    """Workers that write parts of a run; serve/elsewhere.py has those of a Ray cluster."""

    def write(self, parts: Parts, *, todo: Mapping[int, Any], batch: int) -> Generator[int, None, None]:
        """Writes the parts of the spans `todo`, and names each when it is there."""
        ...


@dataclass(frozen=True)
class Scored:
    output: Path
    rows: int
    rejected: int
    seconds: float
    rejects: Path | None


@dataclass(frozen=True)
class _Step:
    span: int
    last: bool
    chunk: Chunk
    pending: Pending | None


def score(
    forward: Forward,
    *,
    model: str,
    rows: Input,
    output: Path,
    batch: int = BATCH,
    max_rejects: float = 0.01,
    resume: bool = False,
    span_rows: int = SPAN_ROWS,
    elsewhere: Elsewhere | None = None,
    say: Say | None = None,
) -> Scored:
    """Writes the scores of `rows` to `output`; `model` is the version that the file will name."""
    begun = time.perf_counter()
    outputs = arrow.schema(forward.outputs())
    clash = sorted(set(outputs.names) & set(rows.carried.names))
    if clash:
        raise UserError(f"the model writes a column {clash[0]!r}, so it cannot be copied; leave it out of --columns")
    schema = pa.schema([*rows.carried, *outputs])
    made_from = account(model, rows=rows, batch=batch, span_rows=span_rows)
    spans = rows.spans(rows=span_rows)
    total = sum(span.rows for span in spans)
    parts = Parts(output, made_from=made_from, schema=schema, resume=resume)
    try:
        if resume and parts.finished():
            parts.drop()
            rejected = _rejected(parts.rejects_path)
        else:
            job = Job(forward, rows=rows, parts=parts, batch=batch, elsewhere=elsewhere)
            rejected = job.run(spans, total=total, max_rejects=max_rejects, say=say)
            parts.join(len(spans), group_rows=span_rows)
    finally:
        parts.close()
    return Scored(output, total, rejected, time.perf_counter() - begun, parts.rejects_path if rejected else None)


def account(model: str, *, rows: Input, batch: int, span_rows: int = SPAN_ROWS) -> dict[str, Any]:
    """What the scores are made from: where two accounts are equal, so are the bytes."""
    return {"model": model, "batch": batch, "span_rows": span_rows, **rows.made_from()}


class Job:
    """Brings the rows of an input through the model into parts, each stage in a thread of its own."""

    doing = "scoring"
    retry = "go on with --resume and a larger --max-rejects"

    def __init__(self, forward: Forward, *, rows: Input, parts: Parts, batch: int, elsewhere: Elsewhere | None = None):
        self.forward, self.rows, self.parts, self.batch = forward, rows, parts, batch
        self._elsewhere = elsewhere

    def run(self, spans: Sequence[Any], *, total: int, max_rejects: float, say: Say | None) -> int:
        """Writes the parts that are not there yet and returns the number of rejected rows of all."""
        tally = Tally(total=total, allowed=max_rejects, retry=self.retry)
        todo = {i: span for i, span in enumerate(spans) if not self.parts.done(i)}
        for index in range(len(spans)):
            if index not in todo:
                tally.add(self.parts.rejected(index))
        before = total - sum(span.rows for span in todo.values())
        with Rows(f"{self.doing} {self.parts.output.name}", total=total, done=before, say=say) as progress:
            if self._elsewhere is None:
                self.write(todo, advance=progress.advance, reject=tally.add)
            else:
                with closing(self._elsewhere.write(self.parts, todo=todo, batch=self.batch)) as done:
                    for index in done:
                        tally.add(self.parts.rejected(index))
                        progress.advance(spans[index].rows)
        return tally.rows

    def write(
        self,
        spans: Mapping[int, Any],
        *,
        advance: Callable[[int], None] = lambda rows: None,
        reject: Callable[[list[dict[str, Any]]], None] = lambda rejects: None,
    ) -> None:
        """Writes these parts; `advance` hears of rows that are written, `reject` of rejects before they are."""
        with (
            closing(_Writer(self.parts, advance=advance)) as writer,
            Behind(writer.write, depth=2) as behind,
            closing(ahead(self._steps(spans), depth=3)) as steps,
        ):
            for span, last, chunk in steps:
                reject(chunk.rejects)
                pending = self.forward.submit(chunk.rows, size=self.batch) if len(chunk.keep) else None
                behind.put(_Step(span, last, chunk, pending))

    def _steps(self, spans: Mapping[int, Any]) -> Iterator[tuple[int, bool, Chunk]]:
        """(span, whether it is the span's last, chunk)."""
        for index, span in spans.items():
            held: Chunk | None = None
            for chunk in self.rows.read(span, rows=self.batch):
                if held is not None:
                    yield index, False, held
                held = chunk
            if held is not None:
                yield index, True, held


class Tally:
    """Counts rejected rows and stops the run once more than the allowed share of all rows is among them."""

    def __init__(self, *, total: int, allowed: float, retry: str, rows: int = 0):
        self.rows, self._total, self._allowed, self._retry = rows, total, allowed, retry
        self._first: list[dict[str, Any]] = []

    def add(self, rejects: list[dict[str, Any]]) -> None:
        if not rejects:
            return
        self.rows += len({(r["file"], r["row"]) for r in rejects})
        self._first += rejects[: SHOWN - len(self._first)]
        if self.rows > self._allowed * self._total:
            lines = "".join(f"\n  {r['file']} row {r['row']}: {r['field']}: {r['why']}{_value(r)}" for r in self._first)
            raise TooManyRejects(
                f"{self.rows} of {self._total} rows rejected so far, allowed {self._allowed:.1%}; "
                f"mend the data, or {self._retry}. The first:{lines}"
            )


class _Writer:
    """Runs in the writing thread: waits for the device, makes the table, closes a span's part when it is complete."""

    def __init__(self, parts: Parts, *, advance: Callable[[int], None]):
        self._parts, self._schema, self._advance = parts, parts.schema, advance
        self._open: PartWriter | None = None

    def write(self, step: _Step) -> None:
        if self._open is None:
            self._open = self._parts.write(step.span)
        columns = dict(step.chunk.carried)
        if step.pending is None:
            columns |= {n: pa.nulls(step.chunk.count, self._schema.field(n).type) for n in self._scores(columns)}
        else:
            kept = np.zeros(step.chunk.count, bool)
            kept[step.chunk.keep] = True
            columns |= arrow.columns(step.pending.result(), kept=kept)
        batch = pa.record_batch([columns[name] for name in self._schema.names], schema=self._schema)
        self._open.add(batch, rejects=step.chunk.rejects)
        if step.last:
            self._open.close()
            self._open = None
        self._advance(step.chunk.count)

    def close(self) -> None:
        """Gives up the part that an error left half-written."""
        if self._open is not None:
            self._open.abandon()

    def _scores(self, carried: dict[str, pa.Array]) -> list[str]:
        return [name for name in self._schema.names if name not in carried]


def _value(reject: dict[str, Any]) -> str:
    return f" ({reject['value']})" if "value" in reject else ""


def _rejected(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open() as file:
        return len({(r["file"], r["row"]) for r in map(json.loads, file)})
