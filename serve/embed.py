"""Vectors of every row of a source, as {id, vector}: what an index is built from and a click tower reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError
from data.sources import Source
from serve.forward import Forward
from serve.inputs import SourceInput
from serve.progress import Rows, Say
from serve.threads import ahead
from serve.trained import Trained, inputs_in

BATCH = 1024
MODEL = b"adloom.model"


def embed(
    trained: Trained,
    *,
    source: Source,
    output: Path,
    id: str = "item",
    vectors: Sequence[str] = ("item",),
    batch: int = BATCH,
    say: Say | None = None,
) -> dict[str, int]:
    """Writes `output` (.parquet or .npz), in the order of the source; `vectors` are joined end to end."""
    write = _write_npz if kind_of(output) == ".npz" else _write_parquet
    forward = _forward(trained, source=source, vectors=vectors, batch=batch)
    dim = sum(shape[0] for shape, _ in forward.outputs().values())
    rows = SourceInput(source, inputs=forward.inputs, name="the source", carry=(id,))
    output.parent.mkdir(parents=True, exist_ok=True)
    with Rows(f"embedding into {output.name}", total=len(source), say=say) as progress:
        write(
            output, _batches(forward, rows=rows, id=id, vectors=vectors, batch=batch, progress=progress), dim, trained
        )
    return {"rows": len(source), "dim": dim}


def kind_of(output: Path) -> str:
    if output.suffix not in (".parquet", ".npz"):
        raise UserError(f"{output} ends neither in .parquet nor in .npz")
    return output.suffix


def read(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """ids, vectors and the version of the model that made them."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                return file["id"], file["vector"], str(file["model"]) if "model" in file else ""
        table = pq.read_table(path, columns=["id", "vector"])
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{path} holds no vectors (columns id and vector): {str(error).splitlines()[0][:160]}"
        ) from error
    vectors = table["vector"].combine_chunks()
    dim = len(vectors[0]) if len(vectors) else 0
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    if vectors.null_count or len(flat) != dim * len(vectors):
        raise UserError(f"{path}: the vectors are not all of one length")
    model = (table.schema.metadata or {}).get(MODEL, b"").decode()
    ids = table["id"].to_numpy()
    return ids.astype(str) if ids.dtype == object else ids, flat.reshape(-1, dim), model


def _forward(trained: Trained, *, source: Source, vectors: Sequence[str], batch: int) -> Forward:
    def function(weights, inputs):
        predictions = trained.predict(weights, inputs)
        for name in vectors:
            if name not in predictions:
                raise UserError(f"the model gives {', '.join(predictions)} for this source, but no vector {name!r}")
            if predictions[name].ndim != 2:
                raise UserError(f"{name!r} has shape {predictions[name].shape}, which is no vector per row")
        return {name: predictions[name] for name in vectors}

    inputs = inputs_in(source, features=trained.features)
    return Forward(function, weights=trained.weights, inputs=inputs, max_batch=batch)


def _batches(
    forward: Forward, *, rows: SourceInput, id: str, vectors: Sequence[str], batch: int, progress: Rows
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    chunks = (chunk for span in rows.spans(rows=1 << 20) for chunk in rows.read(span, rows=batch))
    for chunk in ahead(chunks, depth=2):
        found = forward.submit(chunk.rows, size=batch).result()
        yield chunk.carried[id].to_numpy(), np.concatenate([found[name] for name in vectors], axis=1)
        progress.advance(chunk.count)


def _write_parquet(output: Path, batches: Iterator, dim: int, trained: Trained) -> None:
    scratch = output.with_name(f".{output.name}.part")
    schema = pa.schema(
        [("id", pa.int32()), ("vector", pa.list_(pa.float32(), dim))], metadata={MODEL: trained.version.encode()}
    )
    with pq.ParquetWriter(scratch, schema) as writer:
        for ids, vectors in batches:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
            writer.write_batch(pa.record_batch([pa.array(ids, pa.int32()), column], schema=schema))
    scratch.replace(output)


def _write_npz(output: Path, batches: Iterator, dim: int, trained: Trained) -> None:
    parts = list(batches)
    ids = np.concatenate([ids for ids, _ in parts]) if parts else np.zeros(0, np.int32)
    vectors = np.concatenate([v for _, v in parts]) if parts else np.zeros((0, dim), np.float32)
    scratch = output.with_name(f".{output.stem}.part.npz")
    np.savez(scratch, id=ids, vector=vectors, model=np.array(trained.version))
    scratch.replace(output)
