"""Data sets that TFDS builders prepared (ArrayRecord only), read without TensorFlow and encoded once."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import chz
import numpy as np
import pyarrow as pa

from data.building.blocks import BLOCK, KEY, columns
from data.encode import Encoded, encode
from data.errors import UserError
from data.features import Features
from data.mapped import default_cache, hold
from data.rejects import Rejects, report
from data.sources import Source, SourceConfig
from data.vocabulary import Vocabularies

CHUNK = 4096


@chz.chz
class Prepared(SourceConfig):
    """One split of a prepared TFDS data set, as `python -m data build` leaves it."""

    path: str = chz.field(doc="folder with dataset_info.json, such as .../frappe/1.0.0")
    split: str = chz.field(doc="split, or a slice of one such as train[:10%]")
    features: Features = chz.field(doc="what the fields mean")
    vocabularies: str | None = chz.field(default=None, doc="folder of vocabularies and tokenizers")
    max_rejects: float = chz.field(default=0.01, doc="share of rows that may be set aside before the run stops")
    rejects: str | None = chz.field(default=None, doc="where to write the rows set aside, as JSON lines")
    memory: float = chz.field(default=2.0, doc="GiB of encoded rows held in memory; more goes to the cache")
    cache: str | None = chz.field(default=None, doc="cache folder; default: $XDG_CACHE_HOME/adloom or ~/.cache/adloom")

    def make(self) -> Source:
        rows = opened(self.path, self.split)
        vocabularies = Vocabularies(self.vocabularies)
        rejects = Rejects()
        source = hold(
            self._encoded(rows, vocabularies, rejects),
            features=self.features,
            total=_count(rows),
            memory=self.memory,
            folder=Path(self.cache or default_cache()) / "prepared" / self._key(),
            rejects=rejects,
            settle=lambda found, total: report(found, total, path=self.rejects, max_share=self.max_rejects),
        )
        source.vocabularies = vocabularies  # type: ignore[attr-defined]
        return source

    def _encoded(self, rows, vocabularies: Vocabularies, rejects: Rejects) -> Iterator[Encoded]:
        names = [feature.name for feature in self.features.all]
        for at, found in _blocks(rows, names) if _blocked(rows) else _rows(rows, names):
            chunk = encode(
                pa.table(found),
                features=self.features,
                vocabularies=vocabularies,
                file=f"{self.path}/{self.split}",
                first_row=at,
            )
            rejects.merge(chunk.rejects)
            yield chunk

    def _key(self) -> str:
        digest = hashlib.blake2b(repr((2, self.split, self.features)).encode(), digest_size=16)
        folders = [Path(self.path), *([Path(self.vocabularies)] if self.vocabularies else [])]
        for file in sorted(file for folder in folders for file in folder.iterdir() if file.is_file()):
            digest.update(f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
        return digest.hexdigest()


def _blocked(rows) -> bool:
    """Examples are blocks of rows, as the builders here write them."""
    return KEY in (rows.dataset_info.metadata or {})


def _count(rows) -> int:
    if not _blocked(rows) or not len(rows):
        return len(rows)
    last = next(iter(columns(rows[len(rows) - 1], text=_text_or_bytes).values()))
    return (len(rows) - 1) * BLOCK + len(last)  # the last block of a split alone is short


def _rows(rows, names: list[str]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    for at in range(0, len(rows), CHUNK):
        taken = rows.__getitems__(list(range(at, min(at + CHUNK, len(rows)))))
        yield at, {name: _arrow([row[name] for row in taken]) for name in names if name in taken[0]}


def _blocks(rows, names: list[str]) -> Iterator[tuple[int, dict[str, pa.ChunkedArray]]]:
    for at in range(0, len(rows), CHUNK // 64):
        taken = rows.__getitems__(list(range(at, min(at + CHUNK // 64, len(rows)))))
        parts = [columns({name: row[name] for name in names if name in row}, text=_text_or_bytes) for row in taken]
        kept = {name: pa.chunked_array([part[name] for part in parts]) for name in parts[0]}
        yield at * BLOCK, kept


def opened(path: str | os.PathLike, split: str):
    """The TFDS data source; random access, a dict of numpy values a row."""
    import tensorflow_datasets as tfds  # half a second, and only these sources need it

    if not (Path(path) / "dataset_info.json").exists():
        raise UserError(f"{path}: no prepared data set here (no dataset_info.json); run python -m data build")
    builder = tfds.builder_from_directory(str(path))
    if "array_record" not in str(builder.info.file_format).lower():  # the Parquet format of TFDS loses rows
        raise UserError(f"{path}: prepared as {builder.info.file_format}; build it with file_format='array_record'")
    if split.split("[")[0] not in builder.info.splits:
        raise UserError(f"{path}: no split {split!r}; it has {', '.join(builder.info.splits)}")
    return builder.as_data_source(split=split)


def _arrow(values: list) -> pa.Array:
    """Values of one field: scalars, bytes, or arrays as (nested) lists; bytes of text become strings."""
    if isinstance(values[0], list) or np.ndim(values[0]):
        arrays = [np.asarray(value) for value in values]
        full = [array for array in arrays if len(array)]  # an empty list has no dtype of its own
        flat = np.concatenate(full) if full else np.zeros(0, np.int64)
        inner = _arrow(list(flat)) if len(flat) and (flat.dtype.kind in "OS" or flat.ndim > 1) else pa.array(flat)
        return pa.LargeListArray.from_arrays(pa.array(np.cumsum([0, *map(len, arrays)], dtype=np.int64)), inner)
    if isinstance(values[0], bytes | np.bytes_):
        return _text_or_bytes([bytes(value) for value in values])
    return pa.array(np.asarray(values))


def _text_or_bytes(values: list[bytes]) -> pa.Array:
    array = pa.array(values, pa.large_binary())
    try:
        return array.cast(pa.large_string())
    except pa.ArrowInvalid:  # pictures, sounds
        return array
