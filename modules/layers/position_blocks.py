"""Rows of positions in blocks of one size, for computations that would not fit in memory, or in a cache, at once."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

POSITIONS = 4096
"""Positions of a block on a CPU, whose activations stay in its cache; elsewhere enough of them for a kernel."""
POSITIONS_ELSEWHERE = 1 << 19

FEWEST_ROWS, MOST_ROWS = 8, 32
"""Rows of a block of an exported program, which pads small batches to a whole one."""

_ONE: contextvars.ContextVar[bool] = contextvars.ContextVar("one_block", default=False)

Block = dict[str, jax.Array]
Compute = Callable[[Block, jax.Array], Any]
"""(history, mask, target and scores of a block; its number) -> arrays."""


@contextlib.contextmanager
def one_block() -> Iterator[None]:
    """What is traced within has no loop over blocks, for formats that cannot say one of any number of rows.

    Its memory grows with the batch.
    """
    token = _ONE.set(True)
    try:
        yield
    finally:
        _ONE.reset(token)


class Blocks:
    """[b, t] positions as blocks of rows and of stretches of time. Of a request all rows share one history.

    The rows of a block stand apart by the number of blocks, so that each device keeps its own rows of all blocks.
    """

    def __init__(
        self,
        history: Float[Array, "u t d"],
        *,
        target: Float[Array, "b d"],
        mask: Bool[Array, "u t"],
        scores: Float[Array, "b t"] | None = None,
    ):
        self.rows, (users, self.length) = target.shape[0], mask.shape
        limit = POSITIONS if jax.default_backend() == "cpu" else POSITIONS_ELSEWHERE
        self.stretches, self.stretch = _divide(self.length, limit=limit)
        if _ONE.get():
            self.stretches, self.stretch, self.groups, self.group = 1, self.length, 1, self.rows
        elif isinstance(self.rows, int):
            self.groups, self.group = _divide(self.rows, limit=max(1, limit // self.stretch))
        else:  # an exported program takes any number of rows
            self.group = min(max(limit // self.stretch, FEWEST_ROWS), MOST_ROWS)
            self.groups = -(-self.rows // self.group)
        self.count = self.groups * self.stretches
        self.shared = users == 1 and self.rows > 1
        self.weight = mask.sum() * (self.rows if self.shared else 1)
        """Number of valid positions."""
        arrays = {"history": self._split(history), "mask": self._split(mask)}
        self._one = arrays if self.shared else {}
        self._blocks: Block = {"target": self._of_rows(target), **({} if self.shared else arrays)}
        if scores is not None:
            self._blocks["scores"] = self._split(scores)

    def attach(self, name: str, parts: Float[Array, "n g s *d"]) -> None:
        """Puts what `map` gave for each block into the block."""
        self._blocks[name] = parts

    def map(self, compute: Compute) -> Any:
        """What `compute` gives for each block, stacked."""
        return self.reduce(lambda *block: ((), compute(*block)))[1]

    def sum(self, compute: Compute) -> Any:
        """The sum over the blocks of what `compute` gives."""
        return self.reduce(lambda *block: (compute(*block), ()))[0]

    def reduce(self, compute: Compute) -> tuple[Any, Any]:
        """`compute` gives (what is summed over the blocks, in float32; what is stacked)."""
        numbers = jnp.arange(self.count)
        first = jax.tree.map(lambda x: x[0], self._blocks)
        shapes = jax.eval_shape(lambda: compute(*self._of(first, jnp.zeros((), int)))[0])

        def body(total, part):
            found, rest = compute(*self._of(*part))
            return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, found), rest

        total = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
        if (
            isinstance(self.count, int) and self.count == 1
        ):  # no loop: the compiler may fuse it with what stands around it
            total, rest = body(total, (first, numbers[0]))
            rest = jax.tree.map(lambda x: x[None], rest)
        else:
            total, rest = jax.lax.scan(body, total, (self._blocks, numbers))
        return jax.tree.map(lambda t, s: t.astype(s.dtype), total, shapes), rest

    def of_shared(self, part: Float[Array, "1 s d"], number: jax.Array) -> Float[Array, "n 1 s d"]:
        """An array of the one history that is zero outside of the stretch of this block."""
        return jnp.zeros((self.stretches, *part.shape), part.dtype).at[number % self.stretches].set(part)

    def join(self, parts: Float[Array, "n g s *d"]) -> Float[Array, "b t *d"]:
        """Arrays of blocks back in one."""
        rest = parts.shape[3:]
        x = parts.reshape(self.groups, self.stretches, self.group, self.stretch, *rest)
        x = jnp.moveaxis(x, 2, 0).reshape(self.groups * self.group, self.stretches * self.stretch, *rest)
        return x[: self.rows, : self.length]

    def join_rows(self, parts: Float[Array, "n g d"]) -> Float[Array, "b d"]:
        """Arrays of the rows of each block, summed over the stretches of a row."""
        x = parts.reshape(self.groups, self.stretches, *parts.shape[1:]).sum(1)
        return jnp.swapaxes(x, 0, 1).reshape(-1, x.shape[-1])[: self.rows]

    def join_shared(self, parts: Float[Array, "s g t d"]) -> Float[Array, "1 t d"]:
        """Arrays of the stretches of the one history."""
        return parts.reshape(1, -1, parts.shape[-1])[:, : self.length]

    def _of(self, block: Block, number: jax.Array) -> tuple[Block, jax.Array]:
        if not self.shared:
            return block, number
        at = number % self.stretches
        return {
            **block,
            **{n: jax.lax.dynamic_index_in_dim(x, at, keepdims=False) for n, x in self._one.items()},
        }, number

    def _split(self, x: Float[Array, "b t *d"]) -> Float[Array, "n g s *d"]:
        """Padded with zeros to whole blocks."""
        groups, group = (1, 1) if x.shape[0] == 1 and self.shared else (self.groups, self.group)
        rest = x.shape[2:]
        room = (
            (0, groups * group - x.shape[0]),
            (0, self.stretches * self.stretch - x.shape[1]),
            *((0, 0),) * len(rest),
        )
        x = x if all(isinstance(n, int) and n == 0 for _, n in room) else jnp.pad(x, room)
        x = x.reshape(group, groups, self.stretches, self.stretch, *rest)
        return jnp.moveaxis(x, 0, 2).reshape(groups * self.stretches, group, self.stretch, *rest)

    def _of_rows(self, x: Float[Array, "b d"]) -> Float[Array, "n g d"]:
        room = self.groups * self.group - self.rows
        x = x if isinstance(room, int) and room == 0 else jnp.pad(x, ((0, room), (0, 0)))
        x = jnp.swapaxes(x.reshape(self.group, self.groups, x.shape[-1]), 0, 1)
        return jnp.repeat(x, self.stretches, axis=0) if self.stretches > 1 else x


def _divide(size: int, *, limit: int) -> tuple[int, int]:
    """(number, size) of parts of at most `limit` each: equal ones where that takes no more than twice as many."""
    fewest = -(-size // limit)
    for number in range(fewest, 2 * fewest + 1):
        if size % number == 0:
            return number, size // number
    return fewest, -(-size // fewest)
