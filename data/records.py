"""Encoded rows as ArrayRecord: blocks of 256 rows a record, since a record a row cannot feed a click model.

A folder holds `rows-00000.array_record ...` and `meta.json`. The source offers its blocks to the loader, which shuffles
them and then the rows within windows of blocks.
"""

import json
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import chz
import numpy as np
from array_record.python import array_record_module

from data.errors import UserError
from data.features import Features
from data.sources import Rows, SourceConfig

BLOCK = 256
SHARD = 4096
"""Blocks in a file."""


@chz.chz
class Records(SourceConfig):
    path: str = chz.field(doc="folder that write_records made")
    features: Features = chz.field(doc="what the arrays are; must be among those written")
    window: int = chz.field(default=1 << 16, doc="rows shuffled together, and about half the rows held in memory")

    def make(self) -> "RecordSource":
        return RecordSource(self.path, features=self.features, window=self.window)


def write_records(path: str | os.PathLike, *, batches: Iterable[Rows], features: Features) -> int:
    """Writes a data set whole or not at all; returns its rows."""
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists: remove it or write elsewhere")
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    arrays = features.arrays()
    layout = [[name, list(shape), dtype.str] for name, (shape, dtype) in arrays.items()]
    rows = blocks = 0
    writer: Any = None
    try:
        for block in _blocks(batches, arrays):
            if blocks % SHARD == 0:
                _close(writer)
                name = part / f"rows-{blocks // SHARD:05d}.array_record"
                writer = array_record_module.ArrayRecordWriter(str(name), "group_size:1,uncompressed")
            writer.write(b"".join(np.ascontiguousarray(array).tobytes() for array in block.values()))
            rows += len(next(iter(block.values())))
            blocks += 1
        _close(writer)
        writer = None
        (part / "meta.json").write_text(json.dumps({"rows": rows, "block": BLOCK, "shard": SHARD, "arrays": layout}))
        part.rename(path)
    finally:
        _close(writer)
        shutil.rmtree(part, ignore_errors=True)
    return rows


def _close(writer: Any) -> None:
    if writer is not None:
        writer.close()


def _blocks(batches: Iterable[Rows], arrays: dict) -> Iterable[Rows]:
    left: Rows = {}
    for batch in batches:
        batch = {name: np.asarray(batch[name], dtype) for name, (_, dtype) in arrays.items()}
        joined = {name: np.concatenate([left[name], array]) for name, array in batch.items()} if left else batch
        whole = len(next(iter(joined.values()))) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            yield {name: array[at : at + BLOCK] for name, array in joined.items()}
        left = {name: array[whole:] for name, array in joined.items()}
    if left and len(next(iter(left.values()))):
        yield left


class RecordSource:
    """Random access by block, with the last blocks read kept; pickles as its folder."""

    def __init__(self, path: str | os.PathLike, *, features: Features, window: int):
        self.folder, self.features, self.window = Path(path), features, window
        meta = self.folder / "meta.json"
        if not meta.exists():
            raise UserError(f"{self.folder} holds no records (no meta.json); data.records.write_records makes them")
        layout = json.loads(meta.read_text())
        self._rows, self._block, self._shard = layout["rows"], layout["block"], layout["shard"]
        self._layout = [(name, tuple(shape), np.dtype(kind)) for name, shape, kind in layout["arrays"]]
        written = {name: (shape, dtype) for name, shape, dtype in self._layout}
        for name, declared in features.arrays().items():
            if written.get(name) != declared:
                raise UserError(f"{self.folder}: {name!r} is declared {declared}, written {written.get(name)}")
        self.blocks = np.append(np.arange(0, self._rows, self._block), self._rows)
        self._kept: OrderedDict[int, Rows] = OrderedDict()
        self._most = max(2, 2 * window // self._block)
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> Rows:
        return {name: array[0] for name, array in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        indices = np.asarray(indices)
        wanted, which = np.unique(indices // self._block, return_inverse=True)
        with self._lock:
            blocks = self._read(wanted)
        out = {}
        starts = np.cumsum([0, *(len(next(iter(block.values()))) for block in blocks)])
        at = starts[which] + indices % self._block
        for name in self.features.arrays():
            out[name] = np.concatenate([block[name] for block in blocks])[at]
        return out

    def _read(self, wanted: np.ndarray) -> list[Rows]:
        fresh = [int(number) for number in wanted if int(number) not in self._kept]
        for shard in sorted({number // self._shard for number in fresh}):
            numbers = [number for number in fresh if number // self._shard == shard]
            data = self._reader(shard).read([number % self._shard for number in numbers])
            for number, record in zip(numbers, data, strict=True):
                self._kept[number] = self._parse(record, number)
        found = []
        for number in map(int, wanted):
            self._kept.move_to_end(number)
            found.append(self._kept[number])
        while len(self._kept) > max(self._most, len(wanted)):
            self._kept.popitem(last=False)
        return found

    def _reader(self, shard: int) -> "array_record_module.ArrayRecordReader":
        if shard not in self._readers:
            path = self.folder / f"rows-{shard:05d}.array_record"
            if not path.exists():
                raise UserError(f"{self.folder} lacks {path.name}: copy the whole folder")
            self._readers[shard] = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
        return self._readers[shard]

    def _parse(self, record: bytes, number: int) -> Rows:
        rows = int(self.blocks[number + 1] - self.blocks[number])
        block, at = {}, 0
        for name, shape, dtype in self._layout:
            size = rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if name in self.features.arrays():
                block[name] = np.frombuffer(record, dtype, size // dtype.itemsize, at).reshape(rows, *shape)
            at += size
        return block

    def __reduce__(self):
        return _reopen, (self.folder, self.features, self.window)


def _reopen(folder: Path, features: Features, window: int) -> RecordSource:
    return RecordSource(folder, features=features, window=window)
