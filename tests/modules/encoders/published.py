"""Reference answers, and the file of weights that they came from, made anew from names and shapes."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from tests.modules.encoders.weights import tensor
from train.graph import split, values_of, with_values
from train.init_from import STATS
from train.pretrained import Pretrained

FOLDER = Path(__file__).parent / "reference"


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as stored:
        return dict(stored)


def tensors(name: str) -> dict[str, np.ndarray]:
    """The weights that the reference answered with."""
    found = {}
    for line in reference(name)["tensors"]:
        key, *shape = str(line).split()
        found[key] = tensor(key, shape=tuple(map(int, shape)))
    return found


def write(name: str, *, folder: Path, **changes: np.ndarray | None) -> str:
    """A safetensors file of them; with `changes`, of which None takes a tensor away."""
    held = {k: v for k, v in (tensors(name) | changes).items() if v is not None}
    save_file(held, folder / "model.safetensors")
    return str(folder)


def arrays_of(model: nnx.Module) -> dict[str, jax.Array]:
    _, params, stats = split(model)
    return values_of(params) | {STATS + name: value for name, value in values_of(stats).items()}


def loaded(make: Callable[[], nnx.Module], start: Pretrained) -> nnx.Module:
    """What `make` makes, with the weights of `start` and zeros elsewhere; nothing is initialised."""
    model = nnx.eval_shape(make)
    values, _ = start.match(arrays_of(model))
    whole = {n: jnp.asarray(values.get(n, np.zeros(a.shape, a.dtype))) for n, a in arrays_of(model).items()}
    graph, params, stats = split(model)
    held = {name.removeprefix(STATS): value for name, value in whole.items() if name.startswith(STATS)}
    return nnx.merge(graph, with_values(params, whole), with_values(stats, held))
