"""What a command scores: raw Parquet rows, encoded as the model's features declare, or an encoded source."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data.encode import encode
from data.errors import UserError
from data.features import Features
from data.sources import Source
from data.vocabulary import Vocabularies
from serve.forward import Inputs
from serve.spans import Span, batches, check_columns, parquet_files, spans


@dataclass(frozen=True)
class Chunk:
    """At most a batch of rows, in order. `rows` holds those at the positions `keep` of `count`."""

    count: int
    keep: np.ndarray
    rows: dict[str, np.ndarray]
    carried: dict[str, pa.Array]
    rejects: list[dict[str, Any]] = field(default_factory=list)
    file: str = ""
    first: int = 0
    """Where the rows stand: the number of the first in its file."""


class Input(Protocol):
    carried: pa.Schema

    def spans(self, *, rows: int) -> Sequence[Any]: ...
    def read(self, span: Any, *, rows: int) -> Iterator[Chunk]: ...
    def made_from(self) -> Mapping[str, Any]: ...


def needed(features: Features, *, inputs: Inputs) -> Features:
    """The declared features that bring at least one input of the model; labels are never among them."""
    chosen = Features(all=tuple(f for f in features.all if any(name in inputs for name in f.arrays())))
    missing = sorted(set(inputs) - set(chosen.arrays()))
    if missing:
        raise UserError(f"the model takes {', '.join(missing)}, which no declared feature brings")
    return chosen


class ParquetInput:
    """A file or a folder of them; `carry` names columns to copy as they are."""

    def __init__(
        self,
        path: Path,
        *,
        features: Features,
        vocabularies: Path | None,
        carry: Sequence[str] = (),
        separator: str | None = None,
    ):
        self.files = parquet_files(path)
        self.features, self._separator = features, separator
        self._vocabularies = Vocabularies(vocabularies)
        raw = [f.name for f in features.all]
        check_columns(self.files, wanted=raw, why="the model needs")
        self.carried = check_columns(self.files, wanted=carry, why="--columns names")
        self._columns = list(dict.fromkeys([*raw, *carry]))

    def spans(self, *, rows: int) -> list[Span]:
        return spans(self.files, rows=rows)

    def made_from(self) -> dict[str, Any]:
        return {
            "files": [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in self.files],
            "columns": self.carried.names,
            "separator": self._separator,
        }

    def read(self, span: Span, *, rows: int) -> Iterator[Chunk]:
        at = span.start
        for batch in batches(span, columns=self._columns, rows=rows):
            encoded = encode(
                batch,
                features=self.features,
                vocabularies=self._vocabularies,
                file=str(span.file),
                first_row=at,
                separator=self._separator,
            )
            carried = {name: batch.column(name) for name in self.carried.names}
            rejects = list(encoded.rejects.lines())
            keep = np.asarray(encoded.keep)
            yield Chunk(batch.num_rows, keep, encoded.rows, carried, rejects, str(span.file), at)
            at += batch.num_rows


@dataclass(frozen=True)
class Range:
    start: int
    rows: int


class SourceInput:
    """Every row of a source, with the columns `carry` of its encoded rows."""

    def __init__(self, source: Source, *, inputs: Inputs, name: str, carry: Sequence[str] = ()):
        self._source, self._name = source, name
        declared = source.features.arrays()
        for wanted in (*inputs, *carry):
            if wanted not in declared:
                raise UserError(f"{name} has no {wanted!r}; it has {', '.join(declared)}")
        shaped = [n for n in carry if declared[n][0]]
        if shaped:
            raise UserError(f"{name}: {shaped[0]!r} is no plain column and cannot be copied")
        self._inputs = tuple(inputs)
        self.carried = pa.schema([(n, pa.from_numpy_dtype(declared[n][1])) for n in carry])

    def spans(self, *, rows: int) -> list[Range]:
        total = len(self._source)
        return [Range(start, min(rows, total - start)) for start in range(0, total, rows)]

    def made_from(self) -> dict[str, Any]:
        return {"source": self._name, "rows": len(self._source), "columns": self.carried.names}

    def read(self, span: Range, *, rows: int) -> Iterator[Chunk]:
        for start in range(span.start, span.start + span.rows, rows):
            index = np.arange(start, min(start + rows, span.start + span.rows))
            taken = self._source.take(index)
            carried = {name: pa.array(taken[name]) for name in self.carried.names}
            wanted = {name: taken[name] for name in self._inputs}
            yield Chunk(len(index), np.arange(len(index)), wanted, carried, [], self._name, start)
