"""One's own Parquet: a file, a folder or a glob, encoded once as the features declare.

What fits `memory` is held there. More is encoded block by block into memory-mapped columns in a cache folder, keyed by
the files and the declaration, so that the next run opens at once and a global shuffle costs no more than a gather.
"""

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chz
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.columns import is_list, is_number, is_text, missing_column
from data.encode import Encoded, encode
from data.errors import UserError
from data.features import Features
from data.rejects import Rejects
from data.sources import InMemory, Rows, Source, SourceConfig
from data.vocabulary import Vocabularies

log = logging.getLogger("adloom.data")

VERSION = 1
"""Of the encoding: raise it when arrays made from equal files change."""

CHUNK = 1 << 17
"""Rows encoded at once."""


@chz.chz
class Parquet(SourceConfig):
    path: str = chz.field(doc="file, folder or glob; files are read in the order of their names")
    features: Features = chz.field(doc="what the columns mean; other columns are not read")
    vocabularies: str | None = chz.field(default=None, doc="folder of vocabularies and tokenizers")
    max_rejects: float = chz.field(default=0.01, doc="share of rows that may be set aside before the run stops")
    rejects: str | None = chz.field(default=None, doc="where to write the rows set aside, as JSON lines")
    separator: str | None = chz.field(default=None, doc="splits strings where a feature needs a list, such as ^")
    memory: float = chz.field(default=2.0, doc="GiB of encoded rows held in memory; more goes to the cache")
    cache: str | None = chz.field(default=None, doc="cache folder; default: $XDG_CACHE_HOME/adloom or ~/.cache/adloom")
    window: int = chz.field(default=0, doc="rows shuffled together, for data beyond memory; 0: all of them")
    threads: int = chz.field(default=2, doc="threads that encode")

    def make(self) -> Source:
        files = expand(self.path)
        names = [feature.name for feature in self.features.all]
        check_schemas(files, columns=names)
        vocabularies = Vocabularies(self.vocabularies)
        total = sum(pq.read_metadata(file).num_rows for file in files)
        row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.features.arrays().values())
        rejects = Rejects()
        chunks = encoded(
            files,
            features=self.features,
            vocabularies=vocabularies,
            separator=self.separator,
            threads=self.threads,
            rejects=rejects,
        )
        if total * row <= self.memory * 2**30:
            source: Source = InMemory(_collect(chunks, self.features, total), features=self.features)
            self._settle(rejects, total)
        else:
            folder = Path(self.cache or default_cache()) / "parquet" / self._key(files)
            if folder.exists():
                self._settle(Mapped(folder, features=self.features).rejects, total)
            else:
                log.info("encoding %d rows (%.1f GiB) into %s, once", total, total * row / 2**30, folder)
                build_mapped(
                    folder,
                    chunks,
                    features=self.features,
                    check=lambda: self._settle(rejects, total),
                    rejects=rejects,
                )
            source = Mapped(folder, features=self.features, window=self.window)
            rejects = source.rejects
        source.rejects, source.vocabularies = rejects, vocabularies  # type: ignore[attr-defined]
        return source

    def _settle(self, rejects: Rejects, total: int) -> None:
        if self.rejects is not None and rejects.count:
            rejects.write(self.rejects)
        for line in rejects.summary():
            log.warning(line)
        rejects.check(total, self.max_rejects)

    def _key(self, files: list[Path]) -> str:
        """Names equal encoded content: the files as they stand, the declaration, the vocabularies."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((VERSION, self.features, self.separator)).encode())
        for file in files:
            status = file.stat()
            digest.update(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
            with file.open("rb") as opened:  # the footer holds sizes, offsets and statistics of every column
                opened.seek(max(0, status.st_size - (1 << 16)))
                digest.update(opened.read())
        if self.vocabularies is not None:
            for file in sorted(Path(self.vocabularies).glob("*")):
                if file.is_file():
                    digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adloom"


def expand(path: str) -> list[Path]:
    """The Parquet files meant by `path`."""
    given = Path(path)
    if given.is_dir():
        found = sorted(file for file in given.rglob("*.parquet") if not file.name.startswith((".", "_")))
    elif given.exists():
        found = [given]
    else:
        base = given.anchor or "."
        found = sorted(Path(base).glob(str(given.relative_to(base) if given.anchor else given)))
    if not found:
        raise UserError(f"no Parquet file at {path!r}")
    return found


def opened(file: Path, **options) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, **options)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not readable as Parquet ({str(error).splitlines()[0][:120]})") from error


def check_schemas(files: list[Path], *, columns: list[str]) -> None:
    """Every shard has the columns, of the same family of types as the first shard."""
    first: dict[str, pa.DataType] = {}
    for file in files:
        with opened(file) as parquet:
            schema = parquet.schema_arrow
        for name in columns:
            if name not in schema.names:
                raise missing_column(name, columns=schema.names, file=str(file))
            kind = schema.field(name).type
            known = first.setdefault(name, kind)
            if "null" in _family(known):
                first[name] = kind
            elif "null" not in _family(kind) and _family(kind) != _family(known):
                raise UserError(f"{file}: column {name!r} is {kind}, but {files[0]} has {known}: write one schema")


def _family(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if is_list(kind):
        return f"list of {_family(kind.value_type)}"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer"
    return "number" if is_number(kind) else "text" if is_text(kind) else str(kind)


def encoded(
    files: list[Path],
    *,
    features: Features,
    vocabularies: Vocabularies,
    rejects: Rejects,
    separator: str | None = None,
    threads: int = 2,
) -> Iterator[Encoded]:
    """All rows in order, a chunk at a time; `rejects` gathers what was set aside. Memory holds a few row groups."""
    names = [feature.name for feature in features.all]

    def read(file: Path, group: int, first_row: int, texts: list[str]) -> list[Encoded]:
        try:
            with opened(file, read_dictionary=texts) as parquet:
                table = parquet.read_row_group(group, columns=names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file}: row group {group} is damaged ({str(error).splitlines()[0][:120]})") from error
        return [
            encode(
                table.slice(at, CHUNK),
                features=features,
                vocabularies=vocabularies,
                file=str(file),
                first_row=first_row + at,
                separator=separator,
            )
            for at in range(0, table.num_rows, CHUNK)
        ]

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque = deque()
        for job in _row_groups(files, features, rejects):
            ahead.append(pool.submit(read, *job))
            if len(ahead) > threads:
                yield from _gathered(ahead.popleft().result(), rejects)
        while ahead:
            yield from _gathered(ahead.popleft().result(), rejects)


def _row_groups(files: list[Path], features: Features, rejects: Rejects) -> Iterator[tuple[Path, int, int, list[str]]]:
    keys = {f.name for f in features.all if f.kind == "categorical"}
    for file in files:
        with opened(file) as parquet:
            schema, metadata = parquet.schema_arrow, parquet.metadata
            rejects.note(field=str(file), why="file without rows", count=int(metadata.num_rows == 0))
            texts = [name for name in keys if is_text(schema.field(name).type)]
            first_row = 0
            for group in range(metadata.num_row_groups):
                yield file, group, first_row, texts
                first_row += metadata.row_group(group).num_rows


def _gathered(chunks: list[Encoded], rejects: Rejects) -> Iterator[Encoded]:
    for chunk in chunks:
        rejects.merge(chunk.rejects)
        yield chunk


def _collect(chunks: Iterator[Encoded], features: Features, total: int) -> Rows:
    columns = {name: np.empty((total, *shape), dtype) for name, (shape, dtype) in features.arrays().items()}
    at = 0
    for chunk in chunks:
        for name, array in chunk.rows.items():
            columns[name][at : at + len(chunk.keep)] = array
        at += len(chunk.keep)
    return {name: column[:at] for name, column in columns.items()}


def build_mapped(
    folder: Path, chunks: Iterator[Encoded], *, features: Features, rejects: Rejects, check: Callable[[], None]
) -> None:
    """Writes the columns beside `folder` and renames when whole: a killed build leaves no cache behind."""
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    arrays = features.arrays()
    rows = 0
    try:
        files = {name: (part / f"{number}.bin").open("wb") for number, name in enumerate(arrays)}
        try:
            for chunk in chunks:
                for name, array in chunk.rows.items():
                    files[name].write(np.ascontiguousarray(array).data)
                rows += len(chunk.keep)
        finally:
            for file in files.values():
                file.close()
        check()
        rejects.write(part / "rejects.jsonl")
        notes = [[field, why, count] for (field, why), count in rejects.notes.items()]
        (part / "meta.json").write_text(json.dumps({"rows": rows, "rejected": rejects.count, "notes": notes}))
        try:
            part.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was first with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


class Mapped:
    """Encoded columns on disk. Reads touch only the pages asked for; pickles as its folder."""

    def __init__(self, folder: str | os.PathLike, *, features: Features, window: int = 0):
        self.folder, self.features, self.window = Path(folder), features, window
        meta = json.loads((self.folder / "meta.json").read_text())
        self._len = meta["rows"]
        self.rejects = Rejects.read(self.folder / "rejects.jsonl", count=meta["rejected"])
        for field, why, count in meta["notes"]:
            self.rejects.note(field=field, why=why, count=count)
        self.blocks = None if not window else np.append(np.arange(0, self._len, min(4096, window)), self._len)
        self.columns: Rows = {}
        for number, (name, (shape, dtype)) in enumerate(features.arrays().items()):
            shape = (self._len, *shape)
            empty = not np.prod(shape)
            self.columns[name] = (
                np.empty(shape, dtype) if empty else np.memmap(self.folder / f"{number}.bin", dtype, "r", shape=shape)
            )

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, index: int) -> Rows:
        return {name: np.array(column[index]) for name, column in self.columns.items()}

    def take(self, indices: np.ndarray) -> Rows:
        return {name: np.asarray(column[indices]) for name, column in self.columns.items()}

    def __reduce__(self):
        return _reopen, (self.folder, self.features, self.window)


def _reopen(folder: Path, features: Features, window: int) -> Mapped:
    return Mapped(folder, features=features, window=window)
