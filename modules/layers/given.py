"""What is given of items and never learned: vectors, and lists of related items.

Both are no parameters: they stand with the running statistics, so that they are saved, restored and exported with the
model. A model is made with zeros; `init_from` fills them (train/item_knowledge.py).
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.layers.linear import Linear


class Given(nnx.Variable):
    """An array that no gradient reaches."""


class GivenVectors(nnx.Module):
    """A vector per item, and a learned map of it."""

    def __init__(self, size: int, *, width: int, dim: int, std: float, rngs: nnx.Rngs):
        self.vectors = Given(jnp.zeros((size, width)))
        init = nnx.initializers.normal(std)
        self.map = Linear(width, dim, use_bias=False, kernel_init=init, rngs=rngs)

    def rows(self) -> Float[Array, "v d"]:
        return self.map(self.vectors[...].astype(self.map.kernel.dtype))


class Related(nnx.Module):
    """Scores of all items from a history, by lists: each of its newest items gives weights to the items of its list.

    The weight of an item falls by `decay` with each newer one. Past its end a list gives 0 to id 0, which is no item.
    """

    def __init__(self, size: int, *, listed: int, newest: int):
        self.size, self.newest = size, newest
        self.items = Given(jnp.zeros((size, listed), jnp.int32))
        self.weights = Given(jnp.zeros((size, listed)))

    def __call__(
        self, history: Int[Array, "b t"], *, length: Int[Array, " b"], decay: Float[Array, ""] | float
    ) -> Float[Array, "b v"]:
        age = jnp.arange(min(self.newest, history.shape[1]))
        place = length[:, None] - 1 - age[None]
        ids = jnp.take_along_axis(history, jnp.maximum(place, 0), axis=1)
        strength = jnp.where(place >= 0, (decay**age)[None], 0.0)
        given = self.weights[...][ids] * strength[..., None]
        rows = jnp.arange(history.shape[0])[:, None, None]
        scores = jnp.zeros((history.shape[0], self.size), given.dtype)
        return scores.at[rows, self.items[...][ids]].add(given)
