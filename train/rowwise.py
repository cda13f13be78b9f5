"""Optimizers of embedding tables that touch only the rows of the batch: a step costs the same for any table.

The gradients of equal ids are summed first, without a sort: each position writes its number into a scratch array at
its id, and whichever number stands there afterwards collects that id's gradients. The scratch is never cleared,
since only places written in the same step are read.

Decay of rows that rest is owed, not done: a table keeps the sum over all steps of log(1 - lr * decay), and each row
that sum at its last visit, so that one product settles any number of steps, whatever the learning rate was in each.
"""

import dataclasses
from typing import Any

import chz
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from data.errors import UserError

Slots = dict[str, jax.Array]

OWED = ("decayed", "total", "total_rest")
"""Slots that say by how much each row of a table has yet to decay."""

MAX_ROWS = 2**31 - 2**27  # int32 ids, less room for marks of positions that write nothing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowGrads:
    """Gradients by distinct row. A position that writes nothing has zero gradients and an id past the table."""

    ids: Int[Array, "n"]
    grads: Float[Array, "n d"]
    owner: Int[Array, "v"]

    def scaled(self, factor: jax.Array) -> "RowGrads":
        return dataclasses.replace(self, grads=self.grads * factor)

    def squared_norm(self) -> Float[Array, ""]:
        """What this table adds to the square of the global norm."""
        return jnp.sum(jnp.square(self.grads))


def merge_rows(slots: Slots, *, ids: Int[Array, "n"], grads: Float[Array, "n d"]) -> RowGrads:
    """Sums the gradients of equal ids; ids outside of the table are dropped."""
    owner = slots["owner"]
    rows, count = owner.shape[0], ids.shape[0]
    ids, grads = _gathered(ids.astype(jnp.int32)), _gathered(grads.astype(jnp.float32))
    position = jnp.arange(count, dtype=jnp.int32)
    ids = jnp.where((ids >= 0) & (ids < rows), ids, rows)
    owner = owner.at[ids].set(position, mode="drop")
    collector = jnp.where(ids < rows, owner.at[ids].get(mode="clip"), count)
    grads = jnp.zeros_like(grads).at[collector].add(grads, mode="drop")
    # Distinct ids past the end, so that the writes below may be declared unique.
    ids = jnp.where(collector == position, ids, rows + position)
    return RowGrads(ids=ids, grads=grads, owner=owner)


def _gathered(x: jax.Array) -> jax.Array:
    # Every replica of a row needs all of its gradients: fetched once here, rather than by each scatter below.
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, jax.P())


@jax.jit
def settle(table: Float[Array, "v d"], slots: Slots) -> Float[Array, "v d"]:
    """The whole table as a dense optimizer would have left it."""
    if "decayed" not in slots:
        return table
    return (table * _owed(slots, slots["decayed"])).astype(table.dtype)


def _owed(slots: Slots, decayed: Float[Array, "*n 2"]) -> Float[Array, "*n 1"]:
    """The factor of rows whose sums at their last visit are `decayed`."""
    return jnp.exp((slots["total"] - decayed[..., 0]) + (slots["total_rest"] - decayed[..., 1]))[..., None]


def _added(total: jax.Array, rest: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`total + rest + x` as a number and its rounding error: alone, float32 would lose small steps of long runs."""
    x = x + rest
    new = total + x
    part = new - total
    return new, (total - (new - part)) + (x - part)


@chz.chz
class RowRule:
    """An update rule of rows; `slots` are its arrays per table, with one entry per row each."""

    decay: float = chz.field(
        default=0.0,
        doc="decoupled weight decay, times the learning rate, of every row at every step; rows that are not visited "
        "are settled when next read, exactly",
    )
    mini_batch_aware: float = chz.field(
        default=0.0, doc="L2 of the rows of a batch, each by 1 / its occurrences in all training rows (of DIN)"
    )

    @chz.validate
    def _not_negative(self):
        if min(self.decay, self.mini_batch_aware) < 0:
            raise ValueError("row_rule.decay and row_rule.mini_batch_aware must not be negative")

    def init(self, table: Float[Array, "v d"]) -> Slots:
        rows = table.shape[0]
        if rows > MAX_ROWS:
            raise UserError(f"a row-sparse table holds at most {MAX_ROWS} rows, not {rows}; hash its ids")
        slots = {"owner": jnp.zeros(rows, jnp.int32)}
        if self.decay:
            slots |= {"decayed": jnp.zeros((rows, 2)), "total": jnp.zeros(()), "total_rest": jnp.zeros(())}
        if self.mini_batch_aware:
            slots["occurrences"] = jnp.ones(rows)
        return slots | self.init_rows(table)

    def read(self, table: Float[Array, "v d"], slots: Slots, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Rows as they stand before this step."""
        rows = table[ids]
        return (rows * _owed(slots, slots["decayed"][ids])).astype(rows.dtype) if self.decay else rows

    def regularised(self, table: Float[Array, "v d"], slots: Slots, merged: RowGrads) -> RowGrads:
        """Adds to the gradient of each distinct row of the batch what mini-batch aware L2 gives it."""
        if not self.mini_batch_aware:
            return merged
        share = self.mini_batch_aware / jnp.maximum(slots["occurrences"].at[merged.ids].get(mode="clip"), 1.0)
        pull = share[:, None] * self._rows(table, slots, merged)
        real = merged.ids < table.shape[0]
        return dataclasses.replace(merged, grads=merged.grads + jnp.where(real[:, None], pull, 0.0))

    def update(
        self, table: Float[Array, "v d"], slots: Slots, merged: RowGrads, *, lr: jax.Array | float
    ) -> tuple[jax.Array, Slots]:
        """The table and its slots after one step on the rows of `merged`; all other rows stay as they are."""
        at = merged.ids
        kept = {name: slots[name] for name in slots if name in ("occurrences", *OWED)}
        old = {name: slots[name].at[at].get(mode="clip") for name in slots if name not in ("owner", *kept)}
        change, new = self.step(merged.grads, old)
        new_row = self._rows(table, slots, merged)
        if self.decay:
            new_row = new_row * (1 - lr * self.decay)
            total, rest = _added(slots["total"], slots["total_rest"], jnp.log1p(-jnp.asarray(lr) * self.decay))
            kept |= {"total": total, "total_rest": rest}
        new_row = new_row - lr * change
        if self.decay:
            # What is written hangs on what was read of the same slot: else XLA writes first, into a copy of it all.
            broken = jnp.isnan(new_row).any(axis=-1, keepdims=True)
            new["decayed"] = jnp.where(broken, jnp.nan, jnp.stack([total, rest])[None, :])
        out = {name: slots[name].at[at].set(new[name], mode="drop", unique_indices=True) for name in new}
        table = table.at[at].set(new_row.astype(table.dtype), mode="drop", unique_indices=True)
        return table, {**kept, "owner": merged.owner, **out}

    def _rows(self, table: jax.Array, slots: Slots, merged: RowGrads) -> Float[Array, "n d"]:
        rows = table.at[merged.ids].get(mode="clip").astype(jnp.float32)
        return rows * _owed(slots, slots["decayed"].at[merged.ids].get(mode="clip")) if self.decay else rows

    def init_rows(self, table: Float[Array, "v d"]) -> Slots:
        raise NotImplementedError(f"{type(self).__name__} does not define init_rows")

    def step(self, grads: Float[Array, "n d"], slots: Slots) -> tuple[Float[Array, "n d"], Slots]:
        """The change of each row per unit of learning rate, and the new slots, given those of the same rows."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")


@chz.chz
class LazyAdam(RowRule):
    """Adam whose moments rest while a row is not visited; bias correction counts the visits of each row."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def init_rows(self, table: Float[Array, "v d"]) -> Slots:
        moment = jnp.zeros(table.shape, jnp.float32)
        return {"mu": moment, "nu": jnp.copy(moment), "count": jnp.zeros(table.shape[0], jnp.int32)}

    def step(self, grads: Float[Array, "n d"], slots: Slots) -> tuple[Float[Array, "n d"], Slots]:
        mu = self.b1 * slots["mu"] + (1 - self.b1) * grads
        nu = self.b2 * slots["nu"] + (1 - self.b2) * jnp.square(grads)
        count = slots["count"] + 1
        visits = count.astype(jnp.float32)[:, None]
        scale = jnp.sqrt(nu / (1 - self.b2**visits)) + self.eps
        return mu / (1 - self.b1**visits) / scale, {"mu": mu, "nu": nu, "count": count}


@chz.chz
class RowwiseAdagrad(RowRule):
    """Adagrad with one accumulator per row: the sum over visits of the mean squared gradient."""

    eps: float = 1e-8
    initial: float = chz.field(default=0.0, doc="accumulator at the start; more damps the first visits")

    def init_rows(self, table: Float[Array, "v d"]) -> Slots:
        return {"square": jnp.full(table.shape[0], self.initial, jnp.float32)}

    def step(self, grads: Float[Array, "n d"], slots: Slots) -> tuple[Float[Array, "n d"], Slots]:
        square = slots["square"] + jnp.mean(jnp.square(grads), axis=-1)
        return grads / (jnp.sqrt(square)[:, None] + self.eps), {"square": square}


class Absent:
    """Stands where a row-sparse table would: its rows are on the tape, and any other use is an error."""

    def __init__(self, table: jax.Array, path: str):
        self.shape, self.dtype, self.ndim = table.shape, table.dtype, table.ndim
        self._path = path

    def _refuse(self, *_: Any):
        raise UserError(
            f"optimizer.rows keeps {self._path!r} row-sparse, but the model reads the whole table; "
            "take it out of optimizer.rows"
        )

    __getitem__ = __array__ = __jax_array__ = __matmul__ = __rmatmul__ = __mul__ = __add__ = T = _refuse
