"""The newest vectors of past batches, as further negatives (MoCo's queue, He et al., CVPR 2020, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float


class MemoryBank(nnx.Module):
    """First in, first out; no gradient flows into what it holds."""

    def __init__(self, size: int, *, dim: int):
        self.vectors = nnx.BatchStat(jnp.zeros((size, dim)))
        self.filled = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(
        self, x: Float[Array, "n d"], *, rngs: nnx.Rngs | None
    ) -> tuple[Float[Array, "m d"], Bool[Array, "m"]]:
        """What it holds, and which places are filled; in training `x` is in it from the next batch on."""
        held, filled = self.vectors[...], self.filled[...]
        if rngs is not None:
            newest = jax.lax.stop_gradient(x).astype(held.dtype)
            self.vectors[...] = jnp.concatenate([newest, held])[: len(held)]
            self.filled[...] = jnp.minimum(filled + len(x), len(held))
        return held, jnp.arange(len(held)) < filled
