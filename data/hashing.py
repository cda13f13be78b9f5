"""64-bit hashes of columns, vectorised.

They are part of the stored format: a change makes old vocabularies and hashed tables useless.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.columns import empty_is_null, is_bytes, is_text, nulls, through_dictionary
from data.features import FIRST, MISSING

LONG = 256
"""Strings above this many bytes are rare and hashed one by one."""


def mix(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: a bijection of uint64."""
    x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def hash_column(values: pa.Array) -> np.ndarray:
    """uint64 per value of an integer, boolean, string or binary array; nulls hash like zero or the empty string."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    if pa.types.is_integer(values.type):
        whole = pc.fill_null(values, 0) if values.null_count else values
        return mix(whole.to_numpy(zero_copy_only=False).astype(np.uint64 if kind == pa.uint64() else np.int64))
    if is_text(kind) or is_bytes(kind):
        values = values.cast(pa.large_binary())
    if not pa.types.is_large_binary(values.type):
        raise TypeError(f"cannot hash values of type {kind}")
    return _hash_bytes(pc.fill_null(values, b"") if values.null_count else values)


def _hash_bytes(values: pa.LargeBinaryArray) -> np.ndarray:
    _, offsets, data = values.buffers()
    offsets = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashes = mix(lengths)
    if not len(values) or not lengths.any():
        return hashes
    text = np.frombuffer(data, np.uint8)
    for row in np.flatnonzero(lengths > LONG):
        digest = hashlib.blake2b(text[starts[row] : starts[row] + lengths[row]].tobytes(), digest_size=8).digest()
        hashes[row] = np.frombuffer(digest, "<u8")[0]
    for at in range(0, int(min(lengths.max(), LONG)), 8):
        rows = np.flatnonzero((lengths > at) & (lengths <= LONG))
        where = starts[rows, None] + (at + np.arange(8))
        left = np.minimum(lengths[rows] - at, 8)
        word = text[np.minimum(where, len(text) - 1)]
        word[np.arange(8) >= left[:, None]] = 0
        hashes[rows] = mix(hashes[rows] ^ np.ascontiguousarray(word).view("<u8")[:, 0])
    return hashes


def hash_ids(values: pa.Array, *, rows: int) -> np.ndarray:
    """int32 rows 2..rows-1 of a hashed table; nulls and empty strings give 0."""
    if not pa.types.is_dictionary(values.type) and is_text(values.type) and len(values) > 4096:
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):
        return through_dictionary(values, lambda distinct: _hashed(distinct, rows))
    return _hashed(values, rows)


def _hashed(values: pa.Array, rows: int) -> np.ndarray:
    values = empty_is_null(values)
    ids = (hash_column(values) % np.uint64(rows - FIRST) + np.uint64(FIRST)).astype(np.int32)
    if values.null_count:
        ids[nulls(values)] = MISSING
    return ids
