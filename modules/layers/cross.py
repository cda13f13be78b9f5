"""Cross layers: with weight vectors (DCN), full matrices, and mixtures of low-rank experts (DCN V2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.layers.mlp import linear


class CrossLayer(nnx.Module):
    """Equation 1: x_{l+1} = x0 ⊙ (W x_l + b) + x_l."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear = linear(width, outputs=width, rngs=rngs)

    def __call__(self, x0: Float[Array, "b d"], x: Float[Array, "b d"]) -> Float[Array, "b d"]:
        return x0 * self.linear(x) + x


class LowRankCrossLayer(nnx.Module):
    """The low-rank mixture: x_{l+1} = Σ_k G_k(x_l) x0 ⊙ (U_k tanh(C_k tanh(V_kᵀ x_l)) + b) + x_l, G softmax gates."""

    def __init__(self, width: int, *, rank: int, experts: int, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        self.u = nnx.Param(init(rngs.params(), (experts, rank, width)))
        self.c = nnx.Param(init(rngs.params(), (experts, rank, rank)))
        self.v = nnx.Param(init(rngs.params(), (experts, width, rank)))
        self.b = nnx.Param(jnp.zeros((width,)))
        self.gate = linear(width, outputs=experts, bias=False, rngs=rngs)

    def __call__(self, x0: Float[Array, "b d"], x: Float[Array, "b d"]) -> Float[Array, "b d"]:
        inner = jnp.tanh(jnp.einsum("bd,kdr->bkr", x, self.v[...]))
        inner = jnp.tanh(jnp.einsum("bkr,krq->bkq", inner, self.c[...]))
        gates = jax.nn.softmax(self.gate(x), axis=-1)
        # The gates sum to one, so that the bias leaves the sum over experts.
        mixed = jnp.einsum("bk,bkr,krd->bd", gates, inner, self.u[...])
        return x0 * (mixed + self.b[...][None, :]) + x


class CrossNetwork(nnx.Module):
    """`depth` cross layers; with a `rank` they are low-rank mixtures of `experts`."""

    def __init__(self, width: int, *, depth: int, rank: int | None = None, experts: int = 1, rngs: nnx.Rngs):
        if rank is None:
            layers = [CrossLayer(width, rngs=rngs) for _ in range(depth)]
        else:
            layers = [LowRankCrossLayer(width, rank=rank, experts=experts, rngs=rngs) for _ in range(depth)]
        self.layers = nnx.List(layers)

    def __call__(self, x0: Float[Array, "b d"]) -> Float[Array, "b d"]:
        x = x0
        for layer in self.layers:
            x = layer(x0, x)
        return x


class VectorCross(nnx.Module):
    """DCN (ADKDD 2017), equation 3, `depth` times: x_{l+1} = x0 (x_lᵀ w_l) + b_l + x_l.

    As x_l = α_l x0 + Σ_{k<l} b_k with one number α_l per row, α_{l+1} = α_l + x_lᵀ w_l needs of x0 only its products
    with all w_l, which are one matrix product.
    """

    def __init__(self, width: int, *, depth: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal((2 / (width + 1)) ** 0.5)  # Xavier of each column alone
        self.kernel = nnx.Param(init(rngs.params(), (width, depth)))
        self.bias = nnx.Param(jnp.zeros((depth, width)))

    def __call__(self, x0: Float[Array, "b d"]) -> Float[Array, "b d"]:
        kernel, bias = self.kernel[...], self.bias[...]
        products = x0 @ kernel
        below = jnp.cumsum(bias, axis=0) - bias  # Σ_{k<l} b_k
        shifts = (below * kernel.T).sum(axis=1)
        alpha = jnp.ones_like(products[:, :1])
        for layer in range(kernel.shape[1]):
            alpha = alpha + alpha * products[:, layer : layer + 1] + shifts[layer]
        return alpha * x0 + bias.sum(axis=0)[None, :]
