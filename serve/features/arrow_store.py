"""The read-only store of one machine: an Arrow file, mapped into memory, and the hashes of its ids in order.

folder/
  rows.arrow     all columns; rows in the order of the hashes of their ids
  hashes.npy     those hashes: an id is found by bisection, and compared with the id that stands there
  store.json     manifest.json

Opening reads nothing but the checksums; processes that open one folder share its pages.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import UserError
from data.hashing import hash_column
from data.manifest import checksums, digest, read_json, verify, write_json, write_manifest
from serve.features.store import Ids, Looked, by_hash, check_names, key_array, name_of
from serve.files import settle, staged

KIND = "a feature store"
ROWS, HASHES, ABOUT = "rows.arrow", "hashes.npy", "store.json"


class ArrowStore:
    """Opened by the path of its folder. Threads may share it."""

    def __init__(self, path: Path):
        self.path = path
        manifest = verify(path, kind=KIND)
        if manifest.get("kind") != "features":
            raise UserError(f"{path} is not {KIND}; python -m serve features writes one")
        self.version: str = manifest["version"]
        self.id: str = read_json(path / ABOUT)["id"]
        self._rows = pa.ipc.open_file(pa.memory_map(str(path / ROWS))).read_all()
        self._hashes = np.load(path / HASHES, mmap_mode="r")

    @property
    def schema(self) -> pa.Schema:
        return self._rows.schema

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, ids: Ids, *, names: Collection[str]) -> Looked:
        """The columns `names` of these ids."""
        wanted = check_names(names, schema=self.schema, store=name_of(self.path))
        keys = key_array(ids, of=self.schema.field(self.id).type, store=name_of(self.path))
        at = np.minimum(np.searchsorted(self._hashes, hash_column(keys)), len(self) - 1)
        there = self._rows[self.id].take(pa.array(at)).combine_chunks()
        found = pc.equal(there, keys).to_numpy(zero_copy_only=False).astype(bool)
        return Looked(self._rows.select(wanted).take(pa.array(at, mask=~found)), found)


def build(table: pa.Table, *, id: str, output: Path) -> ArrowStore:
    """Replaces the folder `output` in one step. Equal rows give the same version, in whatever order they come."""
    table, hashes = by_hash(table, id=id)
    with staged(output.parent) as work:
        _write(work / ROWS, table)
        np.save(work / HASHES, hashes)
        write_json(work / ABOUT, {"id": id, "rows": len(table)})
        write_manifest(work, kind="features", version=digest(checksums(work)))
        settle(work, output)
    return ArrowStore(output)


def _write(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table, max_chunksize=len(table))
