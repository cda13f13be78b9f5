"""The newest vectors of past batches, as further negatives (MoCo's queue, He et al., CVPR 2020, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

NO_LABEL = jnp.iinfo(jnp.int32).min


class MemoryBank(nnx.Module):
    """First in, first out; no gradient flows into what it holds. Beside each vector lies its label, such as the product
    that it shows: what has the label of a query is no negative of it, however old.

    While vectors still move fast, all of a batch are told from all that is held by how far they have moved since, and
    nothing else is learned: a bank is of use `after` so many batches (XBM, Wang et al., CVPR 2020, section 3.2).
    """

    def __init__(self, size: int, *, dim: int, after: int = 0):
        self.after = after
        self.vectors = nnx.BatchStat(jnp.zeros((size, dim)))
        self.labels = nnx.BatchStat(jnp.full((size,), NO_LABEL, jnp.int32))
        self.filled, self.batches = (nnx.BatchStat(jnp.zeros((), jnp.int32)) for _ in range(2))

    def __call__(
        self, x: Float[Array, "n d"], *, labels: Int[Array, "n"] | None = None, rngs: nnx.Rngs | None
    ) -> tuple[Float[Array, "m d"], Bool[Array, "m"], Int[Array, "m"]]:
        """What it holds, which places are filled, and the labels; in training `x` is in it from the next batch on."""
        held, filled, told, batches = self.vectors[...], self.filled[...], self.labels[...], self.batches[...]
        if rngs is not None:
            labels = jnp.full((len(x),), NO_LABEL) if labels is None else labels.astype(jnp.int32)
            self.labels[...] = jnp.concatenate([labels, told])[: len(told)]
            newest = jax.lax.stop_gradient(x).astype(held.dtype)
            self.vectors[...] = jnp.concatenate([newest, held])[: len(held)]
            self.filled[...] = jnp.minimum(filled + len(x), len(held))
            self.batches[...] = batches + 1
        return held, (jnp.arange(len(held)) < filled) & (batches >= self.after), told
