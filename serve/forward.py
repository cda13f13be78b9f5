"""Weights on the device and one jitted function, called with few distinct batch sizes so that it compiles rarely."""

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

import jax
import numpy as np

from data.errors import UserError

Rows = Mapping[str, np.ndarray]
Inputs = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Name to (shape of one example, dtype)."""

SMALLEST = 8


def bucket(rows: int, *, largest: int) -> int:
    """The power of two, from SMALLEST to `largest`, that holds `rows`."""
    return min(max(SMALLEST, 1 << max(rows - 1, 0).bit_length()), largest)


class Pending:
    """A batch under way on the device; `result` waits for it and drops the padding."""

    def __init__(self, outputs: Mapping[str, jax.Array], *, rows: int):
        self._outputs, self._rows = outputs, rows
        for value in outputs.values():
            value.copy_to_host_async()

    def result(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value)[: self._rows] for name, value in self._outputs.items()}


class Forward:
    """`function(weights, batch) -> outputs`, row by row; the score of a row does not depend on its neighbours.

    The inputs `shared` have one row that serves all rows of the others, as a request's user serves its candidates.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        *,
        weights: Any,
        inputs: Inputs,
        max_batch: int = 8192,
        shared: Collection[str] = (),
    ):
        self.inputs, self.max_batch, self.shared = dict(inputs), max_batch, frozenset(shared)
        self._call = jax.jit(function)
        self.weights = weights if _on_device(weights) else jax.device_put(weights, jax.local_devices()[0])

    def outputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Name to (shape of one example, dtype) of what a call returns."""
        batch = {
            n: jax.ShapeDtypeStruct((1 if n in self.shared else SMALLEST, *shape), dtype)
            for n, (shape, dtype) in self.inputs.items()
        }
        out = jax.eval_shape(self._call, self.weights, batch)
        return {name: (tuple(a.shape[1:]), np.dtype(a.dtype)) for name, a in sorted(out.items())}

    def __call__(self, batch: Rows) -> dict[str, np.ndarray]:
        """Outputs of any number of rows, in their order."""
        arrays = self._checked(batch)
        rows = self._length(arrays)
        if rows <= self.max_batch:
            return self._dispatch(arrays, rows=rows, size=bucket(rows, largest=self.max_batch)).result()
        starts = range(0, rows, self.max_batch)
        parts = [self(self._each(arrays, lambda a, s=s: a[s : s + self.max_batch])) for s in starts]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def submit(self, batch: Rows, *, size: int) -> Pending:
        """Starts a batch of at most `size` rows, padded to `size`, and returns at once."""
        arrays = self._checked(batch)
        return self._dispatch(arrays, rows=self._length(arrays), size=size)

    def _dispatch(self, arrays: dict[str, np.ndarray], *, rows: int, size: int) -> Pending:
        if rows < size:
            arrays = self._each(arrays, lambda a: np.concatenate([a, np.zeros((size - rows, *a.shape[1:]), a.dtype)]))
        return Pending(self._call(self.weights, arrays), rows=rows)

    def _checked(self, batch: Rows) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for name, (shape, dtype) in self.inputs.items():
            if name not in batch:
                near = get_close_matches(name, list(batch), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; given: {', '.join(sorted(batch)) or 'nothing'}"
                raise UserError(f"the batch lacks input {name!r}{hint}")
            array = np.asarray(batch[name])
            if array.shape[1:] != shape or array.ndim != len(shape) + 1:
                wanted = ", ".join(("b", *map(str, shape)))
                raise UserError(f"input {name!r} has shape {array.shape}, the model takes ({wanted})")
            if not np.can_cast(array.dtype, dtype, casting="same_kind"):
                raise UserError(f"input {name!r} is {array.dtype}, the model takes {dtype}")
            arrays[name] = array.astype(dtype, copy=False)
        many = {n: len(a) for n, a in arrays.items() if n in self.shared and len(a) != 1}
        if many:
            raise UserError(f"a request has one row of the user and the context; given: {many}")
        lengths = {n: len(a) for n, a in arrays.items() if n not in self.shared}
        if len(set(lengths.values())) > 1:
            raise UserError(f"inputs differ in their number of rows: {lengths}")
        return arrays

    def _each(self, arrays: dict[str, np.ndarray], change: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """`change` of every array that has a row of its own for each row of the batch."""
        return {n: a if n in self.shared else change(a) for n, a in arrays.items()}

    def _length(self, arrays: Mapping[str, np.ndarray]) -> int:
        return len(next(a for n, a in arrays.items() if n not in self.shared))


def _on_device(weights: Any) -> bool:
    return all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(weights))
