"""A mixture of experts in which what a position is decides: some kinds of token have an expert of their own."""

import chz
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.experts import Experts
from modules.layers.gelu import gelu
from modules.layers.linear import Linear

GENERAL = 0
"""Kind of the positions that the router sends to the experts of all."""

Kinds = tuple[int, ...]
"""Of each position: GENERAL, or the number of its expert, from 1."""


@chz.chz
class GuidedExperts:
    general: Experts = chz.field(default=Experts(count=4, active=2), doc="experts that the router chooses from")
    guided: bool = chz.field(
        default=True, doc="categories and attributes have experts of their own; else all is routed"
    )

    def make(self, dim: int, *, own: int, hidden: int, rngs: nnx.Rngs) -> "GuidedExpertsLayer":
        """With `own` guided kinds."""
        return GuidedExpertsLayer(self, dim=dim, own=own, hidden=hidden, rngs=rngs)


class GuidedExpertsLayer(nnx.Module):
    """E_k(x) at a position of kind k > 0, Σ_e g_e(x) E_e(x) at the others."""

    def __init__(self, config: GuidedExperts, *, dim: int, own: int, hidden: int, rngs: nnx.Rngs):
        self.general = config.general.make(dim, hidden=hidden, rngs=rngs)
        self.own = nnx.List([Expert(dim, hidden=hidden, rngs=rngs) for _ in range(own if config.guided else 0)])

    def __call__(
        self, x: Float[Array, "b t d"], *, kinds: Kinds, where: Bool[Array, "b t"], training: bool
    ) -> Float[Array, "b t d"]:
        """Kinds are of positions and not of rows, so each expert computes its own positions alone."""
        kind = np.asarray(kinds) if self.own else np.zeros(len(kinds), int)
        places = [np.flatnonzero(kind == k) for k in range(len(self.own) + 1)]
        routed = places[GENERAL]
        parts = [self.general(x[:, routed], where=where[:, routed], training=training)]
        parts += [expert(x[:, place]) for expert, place in zip(self.own, places[1:], strict=True)]
        back = np.argsort(np.concatenate(places))
        return jnp.concatenate(parts, axis=1)[:, back]


class Expert(nnx.Module):
    def __init__(self, dim: int, *, hidden: int, rngs: nnx.Rngs):
        self.up, self.down = Linear(dim, hidden, rngs=rngs), Linear(hidden, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return self.down(gelu(self.up(x), kind="tanh"))
