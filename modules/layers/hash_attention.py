"""Attention by hash collisions: SDIM, section 4.2, and its table of one user that serves every candidate."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

EPSILON = 1e-9  # beside a squared norm: an empty bucket is zero and has a finite gradient


class HashAttention(nnx.Module):
    """(1/G) Σ_g l2(Σ_j 1[sig_g(s_j) = sig_g(q)] s_j), sig_g being `bits` signs of R x; R is drawn once, not trained.

    Two vectors at angle θ agree in a signature with probability (1 - θ/π)^bits, so the sum is a softmax-like weighing
    by similarity. `build` needs the history alone and `query` the candidate alone; called, both at once, without the
    table where each row has its own history.
    """

    def __init__(self, width: int, *, hashes: int = 48, bits: int = 3, seed: int = 0):
        if hashes % bits:
            raise ValueError(f"hashes={hashes} do not divide into signatures of bits={bits}")
        self.groups, self.bits = hashes // bits, bits
        # Stored with the model rather than drawn again, so that tables built elsewhere stay readable.
        drawn = np.random.default_rng(seed).standard_normal((width, hashes), dtype=np.float32)
        self.rotation = nnx.BatchStat(jnp.asarray(drawn))

    def __call__(
        self, history: Float[Array, "u t d"], *, target: Float[Array, "b d"], mask: Bool[Array, "u t"]
    ) -> Float[Array, "b d"]:
        """A row without behaviours gives zero."""
        if history.shape[0] == 1 and target.shape[0] != 1:
            return self.query(self.build(history, mask=mask), target=target)
        # One candidate needs one bucket of each signature, not all of them.
        met = (self.signatures(history) == self.signatures(target)[:, None]) & mask[..., None]
        return _unit(jnp.einsum("btg,btd->bgd", met.astype(history.dtype), history)).mean(axis=1)

    def build(self, history: Float[Array, "u t d"], *, mask: Bool[Array, "u t"]) -> Float[Array, "u g k d"]:
        """A user's table: for each of G signatures and each of its 2^bits values, the behaviours that have it."""
        values = jnp.arange(2**self.bits)
        here = (self.signatures(history)[..., None] == values[None, None, None, :]) & mask[..., None, None]
        return _unit(jnp.einsum("utgk,utd->ugkd", here.astype(history.dtype), history))

    def query(self, table: Float[Array, "u g k d"], *, target: Float[Array, "b d"]) -> Float[Array, "b d"]:
        """What the candidates collide with. Its cost does not depend on how long the history was."""
        chosen = jax.nn.one_hot(self.signatures(target), 2**self.bits, dtype=table.dtype)
        if table.shape[0] == 1:
            return jnp.einsum("bgk,gkd->bd", chosen, table[0]) / self.groups
        return jnp.einsum("bgk,bgkd->bd", chosen, table) / self.groups

    def signatures(self, x: Float[Array, "*b d"]) -> Int[Array, "*b g"]:
        """Bit i of signature g is the sign of column i G + g of R x; signs have no gradient."""
        signs = (jax.lax.stop_gradient(x) @ self.rotation[...].astype(x.dtype) > 0).astype(jnp.int32)
        planes = [signs[..., i * self.groups : (i + 1) * self.groups] << i for i in range(self.bits)]
        return sum(planes[1:], start=planes[0])


def _unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    square = jnp.square(x.astype(jnp.float32)).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + EPSILON).astype(x.dtype)
