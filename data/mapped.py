"""Encoded rows kept: in memory where they fit, otherwise as memory-mapped columns in a cache folder."""

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
from data.sources import InMemory, Rows, Source

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
        source = InMemory(_collect(chunks, features, total), features=features)
        settle(rejects, total)
        source.rejects = rejects  # type: ignore[attr-defined]
        return source
    if folder.exists():
        mapped = Mapped(folder, features=features, window=window)
        settle(mapped.rejects, total)
        return mapped
    log.info("encoding %d rows (%.1f GiB) into %s, once", total, total * row / 2**30, folder)
    build_mapped(folder, chunks, features=features, rejects=rejects, check=lambda: settle(rejects, total))
    return Mapped(folder, features=features, window=window)


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
