"""DIN's local activation unit: how much each past behaviour matters to the target."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.activation_unit import activation_scores
from modules.layers.mlp import MLP


class TargetAttention(nnx.Module):
    """u = Σ_i a_i e_i with a_i = MLP([e_i, v, e_i - v, e_i ⊙ v]).

    Without softmax, as in the paper, the sum of the weights tells how strong the interest is. With softmax they are
    divided by √d and sum to one.
    """

    def __init__(self, width: int, *, mlp: MLP, softmax: bool = False, rngs: nnx.Rngs):
        self.mlp = mlp.make(4 * width, outputs=1, rngs=rngs)
        self.softmax = softmax

    def __call__(
        self,
        history: Float[Array, "u t d"],
        *,
        target: Float[Array, "b d"],
        mask: Bool[Array, "u t"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b d"]:
        """A row without behaviours gives zero."""
        weights = self.weights(history, target=target, mask=mask, rngs=rngs)
        if history.shape[0] == 1:
            return weights @ history[0]
        return jnp.einsum("bt,btd->bd", weights, history)

    def weights(
        self,
        history: Float[Array, "u t d"],
        *,
        target: Float[Array, "b d"],
        mask: Bool[Array, "u t"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t"]:
        scores = activation_scores(self.mlp, history=history, target=target, mask=mask, rngs=rngs)
        if self.softmax:
            scores = scores / math.sqrt(history.shape[-1])
            # A finite floor: a row that is all padding must not become NaN.
            scores = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
        return jnp.where(mask, scores, 0)
