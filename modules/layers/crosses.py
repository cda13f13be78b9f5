"""Embedded cross products of fields: each pair of ids has a row of its own, or shares one by hashing."""

import dataclasses
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from modules.base import Batch, Features
from modules.layers.embedding import ROW_MULTIPLE, UNKNOWN
from modules.layers.rows import take_rows


@dataclasses.dataclass(frozen=True)
class Cross:
    """A pair of fields and its rows in the table."""

    left: str
    right: str
    sizes: tuple[int, int]
    first: int
    rows: int

    @property
    def exact(self) -> bool:
        return math.prod(self.sizes) <= self.rows

    def __call__(self, batch: Batch) -> Int[Array, " b"]:
        """The row of each example's pair of ids; where one id is the request's, of each candidate's pair."""
        a, b = (
            jnp.where((batch[name] >= 0) & (batch[name] < size), batch[name], UNKNOWN)
            for name, size in zip((self.left, self.right), self.sizes, strict=True)
        )
        if self.exact:
            return self.first + a * self.sizes[1] + b
        salt = int.from_bytes(hashlib.blake2b(f"{self.left} x {self.right}".encode(), digest_size=4).digest(), "big")
        mixed = _mix(_mix(a.astype(jnp.uint32) ^ jnp.uint32(salt)) + b.astype(jnp.uint32) * jnp.uint32(0x9E3779B1))
        return self.first + (mixed % jnp.uint32(self.rows)).astype(a.dtype)


class CrossTable(nnx.Module):
    """One table for all pairs; a pair has a row for each combination, or `rows` where there are more."""

    def __init__(
        self,
        pairs: tuple[tuple[str, str], ...],
        *,
        features: Features,
        width: int,
        rows: int,
        std: float,
        rngs: nnx.Rngs,
    ):
        self.crosses = lay_out(pairs, features=features, rows=rows)
        first = self.crosses[-1].first + self.crosses[-1].rows
        if first > np.iinfo(np.int32).max:
            raise ValueError(f"cross tables hold {first} rows, more than int32 ids reach; lower the rows of a pair")
        count = math.ceil(first / ROW_MULTIPLE) * ROW_MULTIPLE
        self.table = nnx.Param(nnx.initializers.normal(std)(rngs.params(), (count, width)))

    def __call__(self, batch: Batch) -> list[jax.Array]:
        """A vector [b, d] for each pair; [1, d] where both fields are the request's."""
        ids = [cross(batch) for cross in self.crosses]
        out: dict[int, jax.Array] = {}
        for rows_here in dict.fromkeys(i.shape[0] for i in ids):
            same = [k for k, i in enumerate(ids) if i.shape[0] == rows_here]
            vectors = take_rows(self.table, jnp.stack([ids[k] for k in same], axis=1))
            out |= {k: vectors[:, place] for place, k in enumerate(same)}
        return [out[k] for k in range(len(ids))]


def lay_out(pairs: tuple[tuple[str, str], ...], *, features: Features, rows: int) -> tuple[Cross, ...]:
    """Where each pair's rows lie in the table, one pair after the other."""
    crosses: list[Cross] = []
    first = 0
    for left, right in pairs:
        sizes = (features[left].size, features[right].size)
        crosses.append(Cross(left, right, sizes, first=first, rows=min(math.prod(sizes), rows)))
        first += crosses[-1].rows
    return tuple(crosses)


def _mix(x: jax.Array) -> jax.Array:
    """Murmur3's finaliser: a bijection of uint32 whose every bit depends on all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
