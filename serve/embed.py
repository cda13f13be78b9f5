"""Vectors of every row of a source, as one file {id, vector}; folders of shards are serve/embed_folder.py's."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError
from data.sources import Source
from data.vector_shards import MODEL
from data.vectors import read as read
from serve.forward import Forward, Inputs
from serve.inputs import SourceInput
from serve.pack import Function, inputs_read
from serve.progress import Rows, Say
from serve.threads import ahead
from serve.trained import Trained, inputs_in

BATCH = 1024


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
    forward = forward_of(trained, vectors=vectors, offered=inputs_in(source, features=trained.features), batch=batch)
    dim = forward.outputs()["vector"][0][0]
    rows = SourceInput(source, inputs=forward.inputs, name="the source", carry=(id,))
    output.parent.mkdir(parents=True, exist_ok=True)
    with Rows(f"embedding into {output.name}", total=len(source), say=say) as progress:
        write(output, _batches(forward, rows=rows, id=id, batch=batch, progress=progress), dim, trained)
    return {"rows": len(source), "dim": dim}


def is_file(output: Path) -> bool:
    """Whether `output` names one file; what has no ending is a folder of shards."""
    return output.suffix != "" and not output.is_dir()


def kind_of(output: Path) -> str:
    if output.suffix not in (".parquet", ".npz"):
        raise UserError(f"{output} ends neither in .parquet nor in .npz; a folder of shards has no ending")
    return output.suffix


def forward_of(trained: Trained, *, vectors: Sequence[str], offered: Inputs, batch: int) -> Forward:
    """The model as {"vector"}: some of its outputs end to end, from those of the inputs `offered` that they read."""
    function = vector_of(trained, vectors=vectors)
    read = inputs_read(function, weights=trained.weights, inputs=offered)
    inputs = {name: spec for name, spec in offered.items() if name in read}
    return Forward(function, weights=trained.weights, inputs=inputs, max_batch=batch)


def vector_of(trained: Trained, *, vectors: Sequence[str]) -> Function:
    def function(weights, inputs):
        predictions = trained.predict(weights, inputs)
        for name in vectors:
            if name not in predictions:
                raise UserError(f"the model gives {', '.join(predictions)} for these inputs, but no vector {name!r}")
            if predictions[name].ndim != 2:
                raise UserError(f"{name!r} has shape {predictions[name].shape}, which is no vector per row")
        return {"vector": jnp.concatenate([predictions[name].astype(jnp.float32) for name in vectors], axis=1)}

    return function


def _batches(
    forward: Forward, *, rows: SourceInput, id: str, batch: int, progress: Rows
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    chunks = (chunk for span in rows.spans(rows=1 << 20) for chunk in rows.read(span, rows=batch))
    for chunk in ahead(chunks, depth=2):
        found = forward.submit(chunk.rows, size=batch).result()
        yield chunk.carried[id].to_numpy(), found["vector"]
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
