"""One table of vectors, for ids that are items of a sequence or tokens of a text."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.layers.embedding import ROW_MULTIPLE
from modules.layers.rows import take_rows


class TokenEmbedding(nnx.Module):
    """`rows()` is there to be tied to an output layer."""

    def __init__(self, size: int, *, dim: int, std: float = 0.02, rngs: nnx.Rngs):
        self.size = size
        padded = -(-size // ROW_MULTIPLE) * ROW_MULTIPLE
        self.table = nnx.Param(nnx.initializers.normal(std)(rngs.params(), (padded, dim)))

    def __call__(self, ids: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        return take_rows(self.table, ids)

    def rows(self) -> Float[Array, "v d"]:
        """All vectors, without the rows that only make the table shard evenly."""
        return self.table[: self.size]


def keep_some(x: Float[Array, "b n d"], *, count: int, rngs: nnx.Rngs) -> Float[Array, "b m d"]:
    """`count` of the positions of each row, drawn anew for each."""
    lots = jax.random.uniform(rngs.dropout(), x.shape[:2])
    kept = jnp.sort(jnp.argsort(lots, axis=1)[:, :count], axis=1)
    return jnp.take_along_axis(x, kept[:, :, None], axis=1)
