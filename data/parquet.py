"""One's own Parquet: a file, a folder or a glob, encoded once as the features declare.

What fits `memory` is held there. More is encoded block by block into memory-mapped columns in a cache folder, keyed by
the files and the declaration, so that the next run opens at once and a global shuffle costs no more than a gather.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chz
import pyarrow as pa
import pyarrow.parquet as pq

from data.arrow_file import SUFFIXES, ArrowFile, block_rows
from data.columns import is_list, is_number, is_text, missing_column
from data.encode import Encoded, encode
from data.errors import UserError
from data.features import Features, Image
from data.mapped import default_cache, hold
from data.rejects import Rejects, report
from data.sources import Source, SourceConfig
from data.vocabulary import Vocabularies

VERSION = 2
"""Of the encoding: raise it when arrays made from equal files change."""

CHUNK = 1 << 17
"""Rows encoded at once."""

SMALL_PICTURE = 128 * 128
"""Pixels up to which one thread decodes faster than two: the interpreter's lock changes hands at each picture
(60 x 80 JPEG: 6.7 k a second against 4.1 k)."""


@chz.chz
class Parquet(SourceConfig):
    path: str = chz.field(doc="file, folder or glob, Parquet or Arrow; files are read in the order of their names")
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
        total = sum(sum(_block_rows(file)) for file in files)
        rejects = Rejects()
        chunks = encoded(
            files,
            features=self.features,
            vocabularies=vocabularies,
            separator=self.separator,
            threads=self.threads,
            rejects=rejects,
        )
        source = hold(
            chunks,
            features=self.features,
            total=total,
            memory=self.memory,
            folder=Path(self.cache or default_cache()) / "parquet" / self._key(files),
            rejects=rejects,
            settle=lambda found, rows: report(found, rows, path=self.rejects, max_share=self.max_rejects),
            window=self.window,
        )
        source.vocabularies = vocabularies  # type: ignore[attr-defined]
        return source

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


def expand(path: str) -> list[Path]:
    """The Parquet and Arrow files meant by `path`."""
    given = Path(path)
    if given.is_dir():
        files = (file for file in given.rglob("*") if file.suffix in (".parquet", *SUFFIXES))
        found = sorted(file for file in files if not file.name.startswith((".", "_")))
    elif given.exists():
        found = [given]
    else:
        base = given.anchor or "."
        found = sorted(Path(base).glob(str(given.relative_to(base) if given.anchor else given)))
    if not found:
        raise UserError(f"no Parquet file at {path!r}, nor an Arrow file")
    return found


def opened(file: Path, **options) -> pq.ParquetFile | ArrowFile:
    kind = "Arrow" if file.suffix in SUFFIXES else "Parquet"
    try:
        return ArrowFile(file) if kind == "Arrow" else pq.ParquetFile(file, **options)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not readable as {kind} ({str(error).splitlines()[0][:120]})") from error


def _block_rows(file: Path) -> list[int]:
    with opened(file) as handle:
        return block_rows(handle)


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
    if any(isinstance(f, Image) and f.height * f.width <= SMALL_PICTURE for f in features.all):
        threads = 1

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
            schema, rows = parquet.schema_arrow, block_rows(parquet)
            rejects.note(field=str(file), why="file without rows", count=int(sum(rows) == 0))
            texts = [name for name in keys if is_text(schema.field(name).type)]
            first_row = 0
            for group, count in enumerate(rows):
                yield file, group, first_row, texts
                first_row += count


def _gathered(chunks: list[Encoded], rejects: Rejects) -> Iterator[Encoded]:
    for chunk in chunks:
        rejects.merge(chunk.rejects)
        yield chunk
