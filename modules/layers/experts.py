"""A position-wise MLP of several experts, of which a gate picks a few for each position.

The gate and its balance are those of the Switch Transformer (Fedus et al., JMLR 2022, eqs. 2 and 4), for any number of
picks. Every position is computed by every expert and the picks are weights of a sum, so none is ever turned away.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import AUX_LOSS, Outputs
from modules.layers.gelu import Gelu, gelu
from modules.layers.linear import Linear


@chz.chz
class Experts:
    count: int = 4
    active: int = chz.field(default=1, doc="experts of a position, those the gate likes best")
    balance: float = chz.field(default=0.01, doc="weight of the loss that spreads the positions over the experts")

    @chz.validate
    def _check(self) -> None:
        if not 1 <= self.active <= self.count:
            raise ValueError(f"experts.active is {self.active} of {self.count} experts; give 1 to {self.count}")

    def make(self, dim: int, *, hidden: int, activation: Gelu = "tanh", rngs: nnx.Rngs) -> "ExpertsLayer":
        return ExpertsLayer(self, dim=dim, hidden=hidden, activation=activation, rngs=rngs)


class Balance(nnx.Variable):
    """The balance loss of the last training pass; 0 before the first."""


class ExpertsLayer(nnx.Module):
    """Σ_e w_e MLP_e(x), where w is the gate's softmax with zeros in place of all but its `active` largest."""

    def __init__(self, config: Experts, *, dim: int, hidden: int, activation: Gelu, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(batch_axis=(0,))
        self.active, self.weight, self.activation = config.active, config.balance, activation
        self.gate = Linear(dim, config.count, use_bias=False, rngs=rngs)
        self.up = Stack(init(rngs.params(), (config.count, dim, hidden)))
        self.down = Stack(init(rngs.params(), (config.count, hidden, dim)))
        self.balance = Balance(jnp.zeros(()))

    def __call__(
        self, x: Float[Array, "b t d"], *, where: Bool[Array, "b t"] | None = None, training: bool = False
    ) -> Float[Array, "b t d"]:
        """`where` keeps padding out of the balance."""
        shares = jax.nn.softmax(self.gate(x).astype(jnp.float32))
        _, best = jax.lax.top_k(shares, self.active)
        picked = jax.nn.one_hot(best, shares.shape[-1]).sum(axis=-2)
        if training:
            self.balance[...] = self.weight * _imbalance(shares, picked / self.active, where)
        y = jnp.einsum("bteh,ehd->bted", gelu(self._up(x), kind=self.activation), self.down.kernel[...])
        y = y + self.down.bias[...][None, None]
        return jnp.einsum("bted,bte->btd", y, (shares * picked).astype(x.dtype))

    def _up(self, x: Float[Array, "b t d"]) -> Float[Array, "b t e h"]:
        return jnp.einsum("btd,edh->bteh", x, self.up.kernel[...]) + self.up.bias[...][None, None]


class Stack(nnx.Module):
    """A kernel and a bias for each expert."""

    def __init__(self, kernel: Float[Array, "e i o"]):
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((kernel.shape[0], kernel.shape[2])))


def _imbalance(
    shares: Float[Array, "b t e"], picked: Float[Array, "b t e"], where: Bool[Array, "b t"] | None
) -> Float[Array, ""]:
    """E Σ_e f_e P_e: 1 where positions and gate are spread evenly, E where one expert has them all."""
    keep = jnp.ones(shares.shape[:2]) if where is None else where.astype(jnp.float32)
    count = jnp.maximum(keep.sum(), 1)
    f = jnp.einsum("bte,bt->e", picked, keep) / count
    p = jnp.einsum("bte,bt->e", shares, keep) / count
    return shares.shape[-1] * jnp.sum(jax.lax.stop_gradient(f) * p)


def balance_losses(model: nnx.Module) -> Outputs:
    """What the experts of `model` owe after a training pass; nothing where it has none."""
    found = [module.balance[...] for _, module in nnx.iter_modules(model) if isinstance(module, ExpertsLayer)]
    return {f"{AUX_LOSS}balance": jnp.stack(found).sum()} if found else {}
