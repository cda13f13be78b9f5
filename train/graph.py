"""Models and batches taken apart and put together: modules as flat dicts, padding as what is asked for."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from data.features import Features
from modules.base import Batch, valid


def name_of(path: tuple) -> str:
    return "/".join(str(part) for part in path)


def split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """The graph, the parameters and all other state."""
    graph, params, stats = nnx.split(model, nnx.Param, ...)
    return graph, params, stats


def values_of(state: nnx.State) -> dict[str, Any]:
    return {name_of(path): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def with_values(template: nnx.State, values: Mapping[str, Any]) -> nnx.State:
    """`template` with the values of a flat dict in place of its own."""
    return nnx.from_flat_state(
        [(path, variable.replace(values[name_of(path)])) for path, variable in nnx.to_flat_state(template)]
    )


def filled_padding(batch: Batch, features: Features, *, filler: int) -> dict[str, jax.Array]:
    """The batch with id `filler` wherever a sequence or bag of ids holds nothing."""
    out = dict(batch)
    for f in features:
        if f.max_len and f.size and f.name in batch:
            ids = batch[f.name]
            mask = valid(batch, f.name)
            out[f.name] = jnp.where(mask.reshape(mask.shape + (1,) * (ids.ndim - 2)), ids, filler)
    return out
