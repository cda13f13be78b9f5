"""SavedModel by jax2tf: our StableHLO within a TensorFlow function of any number of rows, the weights its variables.

The one file that may import TensorFlow (the extra `tf`), and only when it is asked to. What jax2tf writes holds the
program that jax.export makes, for cpu, cuda and tpu.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serve.forward import Inputs, Rows
from serve.pack import PLATFORMS, Function
from serve.targets.base import first_line

FOLDER = "saved_model"


class SavedModel:
    name = "savedmodel"
    packages: tuple[str, ...] = ("tensorflow", "tensorflow-cpu")

    def __init__(self) -> None:
        self._packages = _packages()

    def write(
        self, folder: Path, *, function: Function, weights: Mapping[str, np.ndarray], inputs: Inputs, outputs: Inputs
    ) -> dict[str, Any]:
        tf, jax2tf = self._packages
        names = {n: _argument(n) for n in inputs}
        order = sorted(weights)
        shapes = {n: "(b, " + "".join(f"{size}, " for size in shape) + ")" for n, (shape, _) in inputs.items()}

        def flat(values: list[Any], batch: Mapping[str, Any]) -> dict[str, Any]:
            return dict(function(dict(zip(order, values, strict=True)), dict(batch)))

        try:
            converted = jax2tf.convert(
                flat,
                polymorphic_shapes=[None, shapes],
                with_gradient=False,
                native_serialization_platforms=PLATFORMS,
            )
            module = tf.Module()
            module.weights = [tf.Variable(weights[n], trainable=False, name=_argument(n)) for n in order]
            specs = {names[n]: tf.TensorSpec((None, *shape), dtype, names[n]) for n, (shape, dtype) in inputs.items()}

            def score(**batch: Any) -> dict[str, Any]:
                found = converted(module.weights, {n: batch[tensor] for n, tensor in names.items()})
                return {_argument(n): found[n] for n in outputs}

            module.score = tf.function(score, autograph=False, jit_compile=True)
            signature = module.score.get_concrete_function(**specs)
            tf.saved_model.save(module, str(folder / FOLDER), signatures={"serving_default": signature})
        except Exception as error:  # of two libraries, without a common class
            raise UserError(
                f"the model cannot be exported to a SavedModel: {first_line(error)}; export without --format"
            ) from error
        return {
            "program": FOLDER,
            "platforms": list(PLATFORMS),
            "tensors": {"inputs": names, "outputs": {n: _argument(n) for n in outputs}},
        }

    def run(self, folder: Path, *, about: Mapping[str, Any], batches: Sequence[Rows]) -> list[dict[str, np.ndarray]]:
        tf, _ = self._packages
        loaded = tf.saved_model.load(str(folder / FOLDER))
        call, tensors = loaded.signatures["serving_default"], about["tensors"]
        found = [call(**{tensors["inputs"][n]: tf.constant(a) for n, a in batch.items()}) for batch in batches]
        return [{n: arrays[t].numpy() for n, t in tensors["outputs"].items()} for arrays in found]


def _packages() -> tuple[Any, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # it reports on processors that a machine does not have
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ImportError as error:
        raise UserError(
            f"--format savedmodel needs {error.name}, which is not installed; pip install 'adloom[tf]'"
        ) from error
    return tf, jax2tf


def _argument(name: str) -> str:
    """A name that TensorFlow takes for an argument: "history/length" as "history_length"."""
    return re.sub(r"\W", "_", name)
