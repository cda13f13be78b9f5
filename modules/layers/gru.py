"""Gated recurrent unit over vectors, plain or with an update gate that attention scales (AUGRU)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.mlp import linear


class GRU(nnx.Module):
    """s_t = (1 - z_t) ⊙ s_{t-1} + z_t ⊙ n_t with z_t = a_t σ(W_z x_t + U_z s_{t-1} + b_z) from s_0 = 0, where

    r_t = σ(W_r x_t + U_r s_{t-1} + b_r) and n_t = tanh(W_n x_t + r_t ⊙ U_n s_{t-1} + b_n). Without attention a_t is 1.
    """

    def __init__(self, inputs: int, *, width: int, rngs: nnx.Rngs):
        self.inputs = linear(inputs, outputs=3 * width, rngs=rngs)
        orthogonal = nnx.initializers.orthogonal()
        recurrent = [orthogonal(rngs.params(), (width, width)) for _ in range(3)]
        self.recurrent = nnx.Param(jnp.concatenate(recurrent, axis=1))

    def __call__(
        self,
        x: Float[Array, "u t i"],
        *,
        mask: Bool[Array, "u t"],
        attention: Float[Array, "b t"] | None = None,
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b d"]]:
        """States after every position, and the last. Padding leaves the state as it is.

        With attention of b rows, one list of behaviours may serve them all (u is 1).
        """
        rows = x.shape[0] if attention is None else attention.shape[0]
        a = jnp.ones_like(mask, x.dtype) if attention is None else attention.astype(x.dtype)
        # The matrix products with the inputs do not wait for the state, so they are one outside of the scan.
        from_x = self.inputs(x)
        weights = self.recurrent[...]

        def step(state, now):
            from_x, a, there = now
            z_x, r_x, n_x = jnp.split(from_x, 3, axis=-1)
            z_s, r_s, n_s = jnp.split(state @ weights, 3, axis=-1)
            update = a[:, None] * jax.nn.sigmoid(z_x + z_s)
            new = jnp.tanh(n_x + jax.nn.sigmoid(r_x + r_s) * n_s)
            state = jnp.where(there[:, None], (1 - update) * state + update * new, state)
            return state, state

        start = jnp.zeros((rows, weights.shape[0]), x.dtype)
        last, states = jax.lax.scan(step, start, jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), (from_x, a, mask)))
        return jnp.swapaxes(states, 0, 1), last
