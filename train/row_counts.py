"""How often each row of the row-sparse tables occurs in the training rows: what mini-batch aware L2 divides by."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from data.pipeline import VALID, Loader
from data.sources import Source
from train.program import Program
from train.sharding import Mesh

SECONDS = 10.0  # between lines of progress


def count_rows(
    program: Program, *, loader: Loader, source: Source, say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Occurrences of each row by table, in one pass over the source as batches come from it.

    The ids are those that the model reads without dropout, padding left out, so that hashed, shared and multiplexed
    tables count as they are read. Every process makes the whole pass and finds the same.
    """
    shapes = program.abstract_state

    @jax.jit
    def reads(batch):
        # The ids do not hang on any weight, so these zeros are never made.
        params, stats = (
            jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes[part]) for part in ("params", "stats")
        )
        found: dict[str, list[jax.Array]] = {}
        for path, ids in program.occurrences(params, stats, batch, None):
            found.setdefault(path, []).append(ids)
        return found

    counts = {path: np.zeros(shapes["params"][path].shape[0] + 1, np.int64) for path in sorted(program.row_tables)}
    begun = told = time.perf_counter()
    done, total = 0, len(source)
    # On a device of this process alone: all processes read at their own pace.
    with jax.set_mesh(Mesh().make(devices=jax.local_devices()[:1])):
        for batch in loader.once(source):
            valid = batch.pop(VALID)
            for path, ids in reads({name: array[valid] for name, array in batch.items()}).items():
                np.add.at(counts[path], np.concatenate([np.asarray(i).reshape(-1) for i in ids]), 1)
            done += int(valid.sum())
            if time.perf_counter() - told > SECONDS:
                told = time.perf_counter()
                say(f"counting what {done:,} of {total:,} training rows read")
    say(f"counted the occurrences of {', '.join(counts)} in {total:,} rows, {time.perf_counter() - begun:.1f} s")
    return {path: count[:-1] for path, count in counts.items()}
