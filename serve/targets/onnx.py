"""ONNX by jax2onnx, with the weights inside; run by ONNX Runtime, and checked by it before it is there."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from data.errors import UserError
from modules.layers.position_blocks import one_block
from serve.forward import Inputs, Rows
from serve.pack import Function
from serve.targets.base import first_line

MODEL, WEIGHTS = "model.onnx", "model.weights"
EXTERNAL_BYTES = 1 << 30
"""A protocol buffer holds 2 GiB: weights of more than this lie beside it."""
NOISE = ("jax2onnx", "onnx_ir")
"""Loggers that report, with tracebacks, plug-ins that no model of ours uses."""


class Onnx:
    name = "onnx"
    packages: tuple[str, ...] = ("jax2onnx", "onnx", "onnxruntime")

    def __init__(self) -> None:
        self._packages = _packages()

    def write(
        self, folder: Path, *, function: Function, weights: Mapping[str, np.ndarray], inputs: Inputs, outputs: Inputs
    ) -> dict[str, Any]:
        jax2onnx, onnx, _ = self._packages
        names, given = sorted(inputs), sorted(outputs)
        # An output may bear the name of an input, as a tower's vector does that of its item; tensors may not.
        tensors = {n: n if n not in inputs else f"output/{n}" for n in given}
        (b,) = jax.export.symbolic_shape("b")
        specs = [jax.ShapeDtypeStruct((b, *inputs[n][0]), inputs[n][1]) for n in names]

        def flat(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            constants: dict[str, Any] = dict(weights)
            found = function(constants, dict(zip(names, arrays, strict=True)))
            return tuple(found[n] for n in given)

        with _quiet() as held, one_block():
            try:
                model = jax2onnx.to_onnx(
                    flat, specs, input_names=names, output_names=[tensors[n] for n in given], model_name="adloom"
                )
            except Exception as error:  # plug-ins raise whatever they meet
                raise UserError(_refusal(error, held)) from error
        size = sum(a.nbytes for a in weights.values())
        outside = {"location": WEIGHTS, "all_tensors_to_one_file": True} if size > EXTERNAL_BYTES else {}
        onnx.save_model(model, folder / MODEL, save_as_external_data=bool(outside), **outside)
        opset = max(o.version for o in model.opset_import if not o.domain)
        return {
            "program": MODEL,
            "opset": opset,
            "tensors": {"inputs": {n: n for n in names}, "outputs": tensors},
        }

    def run(self, folder: Path, *, about: Mapping[str, Any], batches: Sequence[Rows]) -> list[dict[str, np.ndarray]]:
        _, _, runtime = self._packages
        names = about["tensors"]["outputs"]
        try:
            session = runtime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])
            found = [session.run(list(names.values()), dict(batch)) for batch in batches]
        except Exception as error:  # its errors have no common class
            raise UserError(
                f"ONNX Runtime does not run the exported program: {first_line(error)}; export without --format"
            ) from error
        return [dict(zip(names, arrays, strict=True)) for arrays in found]


def _packages() -> tuple[Any, Any, Any]:
    try:
        with _quiet():
            import jax2onnx
            import onnx
            import onnxruntime
    except ImportError as error:
        raise UserError(
            f"--format onnx needs {error.name}, which is not installed; pip install 'adloom[onnx]'"
        ) from error
    return jax2onnx, onnx, onnxruntime


def _refusal(error: Exception, held: list[logging.LogRecord]) -> str:
    """Which operation has no ONNX form, as far as can be told, and whether a plug-in was missing."""
    operation, trace = None, error.__traceback__
    while trace is not None:  # of nested programs, such as the body of a loop, the innermost
        equation = trace.tb_frame.f_locals.get("eqn")
        operation = getattr(getattr(equation, "primitive", None), "name", operation)
        trace = trace.tb_next
    what = f"jax2onnx has no ONNX form of the operation {operation!r}" if operation else "jax2onnx cannot follow it"
    broken = sorted({str(r.args[0]) for r in held if "Skipping" in r.msg and isinstance(r.args, tuple)})
    missing = f"; of its plug-ins these could not be loaded: {', '.join(broken)}" if broken else ""
    return f"the model cannot be exported to ONNX: {what} ({first_line(error)}){missing}; export without --format"


@contextlib.contextmanager
def _quiet() -> Iterator[list[logging.LogRecord]]:
    """Keeps the converter's warnings from the console, for a refusal to name. Errors are exceptions: they come out."""
    held: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            held.append(record)

    handler, loggers = Keep(), [logging.getLogger(name) for name in NOISE]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        with warnings.catch_warnings():
            # Its plug-ins use what flax and jax will drop, and ask for float64 to take what they get.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message="Explicitly requested dtype", category=UserWarning)
            yield held
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
