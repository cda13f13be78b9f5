"""One table of vectors, for ids that are items of a sequence or tokens of a text."""

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
