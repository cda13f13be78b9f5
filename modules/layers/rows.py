"""Reading rows of an embedding table so that training can keep their gradients row-sparse.

A dense gradient of a table costs as much as the table. While a `RowTape` is active, `take_rows` on a table
that the tape holds either notes which ids are read (first pass, whose arithmetic XLA removes as dead) or hands
out rows that were gathered outside of the differentiated function (second pass), so that the gradient with
respect to those rows is all there is. Look-ups belong at the top level of a forward pass, not inside a scan.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

_tape: contextvars.ContextVar["RowTape | None"] = contextvars.ContextVar("row_tape", default=None)


class RowTape:
    """Reads of the tables at `paths`, in the order of the forward pass. Without `rows` it records."""

    def __init__(self, paths: frozenset[str], *, rows: list[jax.Array] | None = None):
        self.paths = paths
        self.reads: list[tuple[str, jax.Array]] = []
        self._rows = rows

    def holds(self, table: nnx.Param) -> bool:
        return table.get_metadata().get("path") in self.paths

    def read(self, table: nnx.Param, ids: jax.Array) -> jax.Array:
        self.reads.append((table.get_metadata()["path"], ids))
        if self._rows is None:
            return table[ids]
        return self._rows[len(self.reads) - 1]


@contextlib.contextmanager
def use_tape(tape: RowTape) -> Iterator[RowTape]:
    token = _tape.set(tape)
    try:
        yield tape
    finally:
        _tape.reset(token)


def take_rows(table: nnx.Param, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
    """`table[ids]`, the only way in which a model reads rows of an embedding table."""
    tape = _tape.get()
    if tape is not None and tape.holds(table):
        return tape.read(table, ids)
    return table[ids]
