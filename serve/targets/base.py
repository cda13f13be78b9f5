"""Exports for other runtimes than jax: a program in their own form, checked against ours before anyone sees it.

folder/
  latest                   name of the newest version
  00002000-3fd1c0a79b21/   step and digest of the content
    model.onnx or saved_model/
    signature.json         inputs and outputs by name, each with the name of its tensor, and the parity measured
    selfcheck.safetensors  the rows it was measured on: "input/<name>" and "output/<name>"
    manifest.json          [vocabularies/]
"""

import platform as host
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save_file

from data.errors import UserError
from data.manifest import checksums, digest, write_json, write_manifest
from serve.artifact import SELFCHECK, SIGNATURE, VOCABULARIES
from serve.export import SAMPLE_ROWS, described, id_bounds, open_workdir, random_rows
from serve.files import settle, staged
from serve.forward import Inputs, Rows
from serve.inputs import needed
from serve.pack import Function
from serve.signature import FORMAT, Step, spec_json
from serve.trained import Served
from serve.versions import point

TOLERANCE = 1e-5
"""Of an output, relative to 1 and its size."""
COUNTS = (SAMPLE_ROWS, 1, 5)
"""Rows of the batches of the check: a program may have kept the number that it was made with."""


class Target(Protocol):
    """One runtime; made where its packages are installed."""

    name: str
    packages: tuple[str, ...]

    def write(
        self, folder: Path, *, function: Function, weights: Mapping[str, np.ndarray], inputs: Inputs, outputs: Inputs
    ) -> dict[str, Any]:
        """Writes the program and returns what its signature says: {"program", "tensors", ...}."""
        ...

    def run(self, folder: Path, *, about: Mapping[str, Any], batches: Sequence[Rows]) -> list[dict[str, np.ndarray]]:
        """What the runtime gives for these batches, by our names."""
        ...


@dataclass(frozen=True)
class Exported:
    path: Path
    error: float
    """The largest difference found, as `TOLERANCE` counts it."""


def export_target(
    workdir: Path, *, target: Target, output: Path | None = None, step: Step = "best", calibration: Path | None = None
) -> Exported:
    """Writes output/<version> (default: WORKDIR/export-<format>)."""
    trained, about = open_workdir(workdir, step=step, calibration=calibration)
    return write_target(
        trained,
        target=target,
        output=output or workdir / f"export-{target.name}",
        step=trained.step,
        about=about,
        vocabularies=trained.vocabularies,
    )


def write_target(
    model: Served,
    *,
    target: Target,
    output: Path,
    step: int,
    about: Mapping[str, Any] = {},
    vocabularies: Path | None = None,
) -> Exported:
    """The same for a program and weights that are in memory."""
    inputs = model.inputs()
    features = needed(model.features, inputs=inputs)
    rows = {n: a for n, a in random_rows(features, rows=SAMPLE_ROWS).items() if n in inputs}
    batches = [{n: a[:count] for n, a in rows.items()} for count in COUNTS]
    forward = model.forward(max_batch=SAMPLE_ROWS)
    wanted = [forward(batch) for batch in batches]
    outputs = forward.outputs()
    bounds = id_bounds(features)
    with staged(output) as work:
        made = target.write(work, function=model.serve, weights=model.weights, inputs=inputs, outputs=outputs)
        tensors = made.pop("tensors")
        error = _parity(target.run(work, about={**made, "tensors": tensors}, batches=batches), wanted=wanted)
        signature = {
            **about,
            "format": FORMAT,
            "target": target.name,
            **made,
            "step": step,
            **described(model, features=features),
            "inputs": {
                n: {**s, "tensor": tensors["inputs"][n], **({"rows": bounds[n]} if n in bounds else {})}
                for n, s in spec_json(inputs).items()
            },
            "outputs": {n: {**s, "tensor": tensors["outputs"][n]} for n, s in spec_json(outputs).items()},
            "parity": {"error": error, "allowed": TOLERANCE, "batches": list(COUNTS)},
            "versions": {"python": host.python_version(), **_versions(("jax", "jaxlib", "flax", *target.packages))},
        }
        checks = {f"input/{n}": a for n, a in rows.items()} | {f"output/{n}": a for n, a in wanted[0].items()}
        save_file({n: np.ascontiguousarray(a) for n, a in checks.items()}, work / SELFCHECK)
        write_json(work / SIGNATURE, signature)
        if vocabularies is not None:
            shutil.copytree(vocabularies, work / VOCABULARIES)
        name = f"{step:08d}-{digest(checksums(work))}"
        write_manifest(work, version=name)
        settle(work, output / name)
    point(output, name=name)
    return Exported(output / name, error)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _parity(found: list[dict[str, np.ndarray]], *, wanted: list[dict[str, np.ndarray]]) -> float:
    worst = 0.0
    for got, want in zip(found, wanted, strict=True):
        for name, value in want.items():
            if got[name].shape != value.shape:
                raise UserError(
                    f"the exported program gives output {name!r} the shape {got[name].shape}, the model {value.shape}; "
                    "export without --format"
                )
            # Ids of a top-k may swap where two scores are nearly equal; the scores beside them may not differ.
            if not np.issubdtype(value.dtype, np.floating):
                continue
            error = float(np.max(np.abs(got[name].astype(np.float64) - value) / (1 + np.abs(value)), initial=0))
            if not error <= TOLERANCE:
                raise UserError(
                    f"the exported program differs from the model: output {name!r} is off by {error:.2g} on a batch of "
                    f"{len(value)}, allowed {TOLERANCE:.0e}; export without --format"
                )
            worst = max(worst, error)
    return worst


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # TensorFlow has a name for each kind of machine
            continue
    return found


def target_of(name: str) -> Target:
    """The runtime of this name."""
    from serve.targets.onnx import Onnx  # each needs its own extra
    from serve.targets.savedmodel import SavedModel

    return Onnx() if name == Onnx.name else SavedModel()
