"""What a folder of vectors holds already: which vectors need not be computed again, and where they lie."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.columns import is_text
from data.errors import UserError
from data.hashing import hash_column
from data.manifest import MANIFEST
from data.vector_shards import FINGERPRINT_BYTES, OURS, read_shard
from data.vectors import KIND, opened

KEPT_SHARDS = 4
"""In memory at once while vectors are copied."""


class Known:
    """`made` says how vectors are made (model, outputs, ...); of a folder that says otherwise the ids alone are known.

    Memory: 40 bytes a row.
    """

    def __init__(self, folder: Path, *, made: Mapping[str, Any]):
        self._folder, self.digest, self.before, self.rows = folder, None, None, 0
        self.reusable = False
        self._shards: list[str] = []
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        if folder.is_file():
            raise UserError(f"{folder} is a file; name a folder, or end it in .parquet or .npz and give a --source")
        if (folder / MANIFEST).is_file():
            self._open(made)
        elif folder.is_dir() and not all(OURS.fullmatch(path.name) for path in folder.iterdir()):
            raise UserError(f"{folder} is not {KIND} and not empty; name another")

    def _open(self, made: Mapping[str, Any]) -> None:
        manifest = opened(self._folder)
        self.digest, self.before, self.rows = manifest["digest"], manifest["model"], manifest["rows"]
        self.reusable = all(manifest.get(name) == value for name, value in made.items())
        if manifest.get("id_type") != made["id_type"]:
            return
        self._shards = [shard["file"] for shard in manifest["shards"]]
        keys, prints, where = [], [], []
        for number, name in enumerate(self._shards):
            table = read_shard(self._folder / name, columns=["id", "fingerprint"]).combine_chunks()
            keys.append(id_keys(table["id"].combine_chunks()))
            prints.append(unpacked(table["fingerprint"].combine_chunks()))
            where.append(np.stack([np.full(len(table), number), np.arange(len(table))], axis=1))
        if not keys:
            return
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        self._keys, self._prints = key[order], np.concatenate(prints)[order]
        self._where = np.concatenate(where)[order]

    def find(self, keys: np.ndarray, prints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each row's vector lies, or -1; and which rows' ids the folder has, be their content the same or not."""
        if not self._shards:
            return np.full(len(keys), -1), np.zeros(len(keys), bool)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        there = self._keys[at] == keys
        same = there & (self._prints[at] == prints).all(axis=1)
        return np.where(same & self.reusable, at, -1), there

    def vectors(self, at: np.ndarray) -> np.ndarray:
        """The vectors that `find` named, in its order."""
        where = self._where[at]
        parts = [self._shard(number)[where[where[:, 0] == number, 1]] for number in np.unique(where[:, 0])]
        out = np.zeros((len(at), parts[0].shape[1]), np.float32)
        for number, part in zip(np.unique(where[:, 0]), parts, strict=True):
            out[where[:, 0] == number] = part
        return out

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._cache:
            column = read_shard(self._folder / self._shards[number], columns=["vector"])["vector"].combine_chunks()
            self._cache[number] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            while len(self._cache) > KEPT_SHARDS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]


def id_keys(ids: pa.Array) -> np.ndarray:
    """uint64 per id: a bijection of integers, a hash of strings."""
    return hash_column(ids)


def plain_ids(ids: pa.Array, *, name: str) -> pa.Array:
    """Ids as int64 or as strings."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if pa.types.is_integer(ids.type):
        return ids.cast(pa.int64())
    if is_text(ids.type):
        return ids.cast(pa.string())
    raise UserError(f"column {name!r} is {ids.type}; ids are integers or strings")


def fingerprints(rows: Mapping[str, np.ndarray], *, count: int) -> np.ndarray:
    """[n, 2] uint64 of the encoded inputs of each row: equal where the model would be given the same."""
    names = sorted(rows)
    spec = repr([(name, rows[name].dtype.str, rows[name].shape[1:]) for name in names]).encode()
    key = hashlib.blake2b(spec, digest_size=32).digest()
    columns = [np.ascontiguousarray(rows[name]).reshape(count, -1).view(np.uint8) for name in names if count]
    flat = np.concatenate(columns, axis=1) if columns else np.zeros((0, 0), np.uint8)
    digests = (hashlib.blake2b(row.data, digest_size=FINGERPRINT_BYTES, key=key).digest() for row in flat)
    return np.frombuffer(b"".join(digests), "<u8").reshape(count, 2)


def packed(prints: np.ndarray, *, where: np.ndarray) -> pa.Array:
    """Fingerprints as an Arrow column, null where not `where`."""
    raw = np.ascontiguousarray(prints, "<u8").tobytes()
    size = FINGERPRINT_BYTES
    values = [raw[i * size : (i + 1) * size] if kept else None for i, kept in enumerate(where)]
    return pa.array(values, pa.binary(size))


def unpacked(column: pa.Array) -> np.ndarray:
    """What `packed` packed; nulls are zeros."""
    filled = column.fill_null(bytes(FINGERPRINT_BYTES)) if column.null_count else column
    size = FINGERPRINT_BYTES
    raw = filled.buffers()[1].to_pybytes()[filled.offset * size : (filled.offset + len(filled)) * size]
    return np.frombuffer(raw, "<u8").reshape(len(filled), 2)
