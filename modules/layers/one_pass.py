"""One pass of an encoder over the rows of several inputs: one program to compile, and larger products to compute."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def in_one_pass(encode: Callable[[Any], Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """What `encode` makes of each of `parts`, trees of arrays alike in structure and shape."""
    if not parts:
        return {}
    found = encode(jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts.values()))
    apart = jax.tree.map(lambda x: x.reshape(len(parts), -1, *x.shape[1:]), found)
    return {name: jax.tree.map(lambda x, i=i: x[i], apart) for i, name in enumerate(parts)}
