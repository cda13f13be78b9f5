"""Encoded rows kept: in memory where they fit, otherwise memory-mapped in a cache folder.

The scalars of a row lie side by side in a matrix of 32-bit words: a shuffled batch then costs one far read a row, not
one a column.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data.encode import Encoded
from data.features import Features
from data.rejects import Rejects
from data.sources import Rows, Source

log = logging.getLogger("adloom.data")


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adloom"


def hold(
    chunks: Iterator[Encoded],
    *,
    features: Features,
    total: int,
    memory: float,
    folder: Path,
    rejects: Rejects,
    settle: Callable[[Rejects, int], None],
    window: int = 0,
) -> Source:
    """A source of all `chunks`: in memory below `memory` GiB, else mapped from `folder`, which is built once.

    `rejects` fills as the chunks are read; `settle` reports them and stops when they are too many.
    """
    row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in features.arrays().values())
    if total * row <= memory * 2**30:
        words, others = _collect(chunks, features, total)
        settle(rejects, total)
        return Kept(words, others, features=features, rejects=rejects)
    if folder.exists():
        mapped = Mapped(folder, features=features, window=window)
        settle(mapped.rejects, total)
        return mapped
    log.info("encoding %d rows (%.1f GiB) into %s, once", total, total * row / 2**30, folder)
    build_mapped(folder, chunks, features=features, rejects=rejects, check=lambda: settle(rejects, total))
    return Mapped(folder, features=features, window=window)


def scalars(features: Features) -> list[str]:
    """The arrays of one 32-bit value per row."""
    return [name for name, (shape, dtype) in features.arrays().items() if shape == () and dtype.itemsize == 4]


def in_words(rows: Rows, features: Features, *, out: np.ndarray | None = None) -> np.ndarray:
    """The scalars of `rows` side by side; a few thousand rows at a time, which stay in the processor's cache."""
    names = scalars(features)
    count = len(next(iter(rows.values()))) if rows else 0
    out = np.empty((count, len(names)), np.uint32) if out is None else out
    columns = [rows[name].view(np.uint32) for name in names]
    for at in range(0, count, 2048):
        part = out[at : at + 2048]
        for place, column in enumerate(columns):
            part[:, place] = column[at : at + 2048]
    return out


class Kept:
    """Encoded rows by words and other arrays. `columns` are views of them."""

    blocks: np.ndarray | None = None
    window = 0

    def __init__(self, words: np.ndarray, others: Rows, *, features: Features, rejects: Rejects):
        self.features, self.rejects = features, rejects
        self._words, self._others = words, others
        self._names = scalars(features)
        self._kinds = [features.arrays()[name][1] for name in self._names]

    @property
    def columns(self) -> Rows:
        views = {n: self._words[:, i].view(k) for i, (n, k) in enumerate(zip(self._names, self._kinds, strict=True))}
        return {name: views[name] if name in views else self._others[name] for name in self.features.arrays()}

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> Rows:
        return {name: np.array(array[0]) for name, array in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        words = np.ascontiguousarray(self._words[indices].T)
        rows = {name: word.view(kind) for name, word, kind in zip(self._names, words, self._kinds, strict=True)}
        rows |= {name: np.asarray(array[indices]) for name, array in self._others.items()}
        return {name: rows[name] for name in self.features.arrays()}


def _collect(chunks: Iterator[Encoded], features: Features, total: int) -> tuple[np.ndarray, Rows]:
    names = scalars(features)
    words = np.empty((total, len(names)), np.uint32)
    others = {
        name: np.empty((total, *shape), dtype)
        for name, (shape, dtype) in features.arrays().items()
        if name not in names
    }
    at = 0
    for chunk in chunks:
        end = at + len(chunk.keep)
        in_words(chunk.rows, features, out=words[at:end])
        for name, array in others.items():
            array[at:end] = chunk.rows[name]
        at = end
    return words[:at], {name: array[:at] for name, array in others.items()}


def build_mapped(
    folder: Path, chunks: Iterator[Encoded], *, features: Features, rejects: Rejects, check: Callable[[], None]
) -> None:
    """Writes the columns beside `folder` and renames when whole: a killed build leaves no cache behind."""
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    others = [name for name in features.arrays() if name not in scalars(features)]
    rows = 0
    try:
        words = (part / "words.bin").open("wb")
        files = {name: (part / f"{number}.bin").open("wb") for number, name in enumerate(others)}
        try:
            for chunk in chunks:
                words.write(in_words(chunk.rows, features).data)
                for name, file in files.items():
                    file.write(np.ascontiguousarray(chunk.rows[name]).data)
                rows += len(chunk.keep)
        finally:
            for file in (words, *files.values()):
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


class Mapped(Kept):
    """The same on disk. Reads touch only the pages asked for; pickles as its folder."""

    def __init__(self, folder: str | os.PathLike, *, features: Features, window: int = 0):
        self.folder, self.window = Path(folder), window
        meta = json.loads((self.folder / "meta.json").read_text())
        rows = meta["rows"]
        rejects = Rejects.read(self.folder / "rejects.jsonl", count=meta["rejected"])
        for field, why, count in meta["notes"]:
            rejects.note(field=field, why=why, count=count)
        names, arrays = scalars(features), features.arrays()
        words = self._map("words", (rows, len(names)), np.dtype(np.uint32))
        others = [name for name in arrays if name not in names]
        columns = {name: self._map(i, (rows, *arrays[name][0]), arrays[name][1]) for i, name in enumerate(others)}
        super().__init__(words, columns, features=features, rejects=rejects)
        self.blocks = None if not window else np.append(np.arange(0, rows, min(4096, window)), rows)

    def _map(self, name: str | int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if not np.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(self.folder / f"{name}.bin", dtype, "r", shape=shape)

    def __reduce__(self):
        return _reopen, (self.folder, self.features, self.window)


def _reopen(folder: Path, features: Features, window: int) -> Mapped:
    return Mapped(folder, features=features, window=window)
