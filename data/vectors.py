"""Vectors with ids, as `python -m serve embed` writes them: a folder of shards with a manifest, or one file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import UserError
from data.manifest import MANIFEST, verify
from data.vector_shards import MODEL, read_shard

KIND = "a folder of vectors"
FORM = "item vectors are id [n] and vector [n, d]"


def read(path: Path, *, model: str | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """ids, vectors and the version of the model that made them, of a folder, a .parquet or an .npz file.

    Vectors of another model than `model`, where one is named, are refused: their products would mean nothing.
    """
    if path.is_dir():
        ids, vectors, made_by = _of_folder(path)
    elif path.suffix == ".npz":
        ids, vectors, made_by = _of_npz(path)
    else:
        ids, vectors, made_by = _of_parquet(path)
    if ids.ndim != 1 or vectors.ndim != 2 or len(ids) != len(vectors):
        raise UserError(f"{path}: ids of shape {ids.shape} and vectors of shape {vectors.shape}; {FORM}")
    if model is not None and model != made_by:
        raise UserError(f"{path} holds vectors of model {made_by!r}, not of {model!r}; embed the items again")
    return ids, vectors, made_by


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def opened(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of vectors, once every shard has been found unchanged."""
    manifest = verify(folder, kind=KIND)
    if manifest.get("kind") != "vectors":
        raise UserError(f"{folder} is not {KIND}: its {MANIFEST} speaks of something else")
    return manifest


def _of_folder(folder: Path) -> tuple[np.ndarray, np.ndarray, str]:
    manifest = opened(folder)
    dim = manifest["dim"]
    ids: list[np.ndarray] = []
    out = np.zeros((manifest["rows"], dim), np.float32)
    at = 0
    for shard in manifest["shards"]:
        some, vectors = _columns(read_shard(folder / shard["file"], columns=["id", "vector"]), path=folder)
        if vectors.shape[1] != dim or at + len(some) > len(out):
            raise UserError(f"{folder / shard['file']} holds {vectors.shape} numbers, {MANIFEST} says otherwise")
        ids.append(some)
        out[at : at + len(some)] = vectors
        at += len(some)
    empty = np.zeros(0, str if manifest["id_type"] == "string" else np.int64)
    return (np.concatenate(ids) if ids else empty), out, manifest["model"]


def _of_npz(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    try:
        with np.load(path) as file:
            if lost := [name for name in ("id", "vector") if name not in file]:
                raise UserError(f"{path} holds no vectors: no array {lost}; {FORM}")
            return file["id"], file["vector"], str(file["model"]) if "model" in file else ""
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} holds no vectors: {_first(error)}") from error


def _of_parquet(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    try:
        names = pq.read_schema(path).names
        if lost := [name for name in ("id", "vector") if name not in names]:
            raise UserError(f"{path} holds no vectors: no column {lost}; {FORM}")
        table = read_shard(path, columns=["id", "vector"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} holds no vectors: {_first(error)}") from error
    return *_columns(table, path=path), (table.schema.metadata or {}).get(MODEL, b"").decode()


def _columns(table: pa.Table, *, path: Path) -> tuple[np.ndarray, np.ndarray]:
    vectors, ids = table["vector"].combine_chunks(), table["id"].to_numpy()
    widths = np.unique(pc.list_value_length(vectors).fill_null(0).to_numpy(zero_copy_only=False))
    if len(widths) > 1:
        raise UserError(f"{path}: vectors of {', '.join(map(str, widths))} numbers; item vectors have one width")
    dim = int(widths[0]) if len(widths) else getattr(vectors.type, "list_size", 0)
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return ids.astype(str) if ids.dtype == object else ids, flat.reshape(len(ids), dim)


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
