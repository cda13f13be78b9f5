"""The folder of an index.

folder/
  latest                      name of the version that is opened
  00000003-3fd1c0a79b21/      number and digest of the content
    index.json                engine, model, rows, recall measured at build
    ids.npy                   [attributes.parquet]
    vectors.npy               or, of ScaNN, scann/ with the vectors, codes and tree
    manifest.json             checksums of all
    [dead.npy new_vectors.npy new_ids.npy new_attributes.parquet queries.npy]     of a live index
  lock                        held by the process that writes
  [updates-*.log]             of a live index: what came since
A version is put in place whole and named by `latest` last. The one before it stays, for those that are opening it.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data.errors import UserError
from data.manifest import checksums, digest, read_json, verify, write_json, write_manifest
from serve.files import Lock, settle, staged
from serve.index.attributes import Attributes
from serve.index.base import Engine
from serve.index.exact import Exact
from serve.index.log import foreign
from serve.index.scann_engine import ASSETS, FOLDER, Scann, open_scann
from serve.versions import LATEST, point, resolve

FORMAT = 2
KIND = "an index"
AGAIN = "python -m serve index VECTORS --output FOLDER writes an index"
ABOUT, IDS, VECTORS, ATTRIBUTES = "index.json", "ids.npy", "vectors.npy", "attributes.parquet"
DEAD, QUERIES = "dead.npy", "queries.npy"
NEW_VECTORS, NEW_IDS, NEW_ATTRIBUTES = "new_vectors.npy", "new_ids.npy", "new_attributes.parquet"
VERSION = re.compile(r"(\d{8})-[0-9a-f]{12}")
KEPT = 2
LOCK = "lock"

Fill = Callable[[Path], dict[str, Any]]


def publish(output: Path, *, fill: Fill, model: str, held: bool = False) -> Path:
    """Writes a version: `fill` puts files into a folder and returns what index.json says.

    `held`: the caller has the folder's lock. Else it is taken, so that no index is put in place of one that is written.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = None if held else Lock(output / LOCK)
    try:
        return _publish(output, fill=fill, model=model)
    finally:
        if lock is not None:
            lock.release()


def _publish(output: Path, *, fill: Fill, model: str) -> Path:
    with staged(output) as work:
        about = {"format": FORMAT, "model": model, **fill(work)}
        write_json(work / ABOUT, about)
        number = max((int(match[1]) for match in map(VERSION.fullmatch, _names(output)) if match), default=0) + 1
        name = f"{number:08d}-{digest(checksums(work))}"
        write_manifest(work, version=name, model=model)
        settle(work, output / name)
    point(output, name=name)
    for path in foreign(output, lineage=about.get("lineage", "")):
        path.unlink()
    for old in sorted(name for name in _names(output) if VERSION.fullmatch(name))[:-KEPT]:
        shutil.rmtree(output / old)
    return output / name


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def save_rows(work: Path, *, engine: Engine, ids: np.ndarray, attributes: Attributes) -> None:
    if isinstance(engine, Scann):
        engine.save(work / FOLDER)
    else:
        np.save(work / VECTORS, engine.vectors)
    np.save(work / IDS, ids)
    save_attributes(work / ATTRIBUTES, attributes)


def saved(engine: Engine, *, version: Path) -> None:
    """Where its files are now: the next version need not write them again."""
    if isinstance(engine, Scann):
        engine.files = version / FOLDER


def save_attributes(path: Path, attributes: Attributes) -> None:
    """None where there are no columns."""
    if attributes.columns:
        pq.write_table(attributes.table(), path)


class Version:
    """A version whose files were all found as they were written."""

    def __init__(self, folder: Path, *, model: str | None):
        self.path = resolve(folder, again=AGAIN)
        verify(self.path, kind=KIND)
        self.about: dict[str, Any] = read_json(self.path / ABOUT)
        if self.about.get("format") != FORMAT:
            found = self.about.get("format")
            raise UserError(f"{folder} has format {found}, this version reads {FORMAT}; build the index again")
        self.model: str = self.about["model"]
        if model is not None and model != self.model:
            raise UserError(f"{folder} holds vectors of model {self.model!r}, not of {model!r}; build the index again")

    @property
    def ids(self) -> np.ndarray:
        return np.load(self.path / IDS)

    def engine(self) -> Engine:
        folder = self.path / FOLDER
        if not folder.is_dir():
            return Exact(np.load(self.path / VECTORS, mmap_mode="r"))
        named = re.findall(r'asset_path: "([^"]*)"', (folder / ASSETS).read_text())
        if outside := [name for name in named if Path(name).name != name]:
            raise UserError(f"{folder / ASSETS} names {outside[0]}, which is not beside it; build the index again")
        return open_scann(folder, about=self.about["settings"])

    def attributes(self, file: str = ATTRIBUTES, *, count: int) -> Attributes:
        path = self.path / file
        return Attributes.of_table(pq.read_table(path)) if path.is_file() else Attributes.none(count)

    def array(self, file: str) -> np.ndarray | None:
        path = self.path / file
        return np.load(path) if path.is_file() else None


def latest(folder: Path) -> str | None:
    """What `latest` says now."""
    path = folder / LATEST
    return path.read_text() if path.is_file() else None
