"""Loads an exported model: a program, its weights and a signature. Needs nothing of modules/ or train/.

folder/
  latest                   name of the version that `load(folder)` opens
  00002000-3fd1c0a79b21/   step and digest of the content
    program.stablehlo      jax.export, symbolic batch, weights as arguments
    [request.stablehlo]    the same for one user and any number of candidates
    weights.safetensors    signature.json    selfcheck.safetensors    manifest.json    [vocabularies/]
"""

from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from data.errors import UserError
from data.features import Features
from data.manifest import read_json, verify
from serve import versions
from serve.forward import Forward, Rows
from serve.signature import FORMAT, features_from_json, spec_from_json
from serve.versions import LATEST

PROGRAM, REQUEST, WEIGHTS = "program.stablehlo", "request.stablehlo", "weights.safetensors"
SIGNATURE = "signature.json"
SELFCHECK, VOCABULARIES = "selfcheck.safetensors", "vocabularies"
KIND = "an exported artefact"

SAME_PLATFORM = 1e-5
OTHER_PLATFORM = 2e-2
"""Accelerators multiply float32 in fewer bits by default."""


class Artifact:
    """A verified model: `artifact(batch)` scores encoded rows. Opened by `load`."""

    def __init__(self, path: Path, *, max_batch: int):
        manifest = verify(path, kind=KIND)
        self.path = path
        self.signature: dict[str, Any] = read_json(path / SIGNATURE)
        if self.signature.get("format") != FORMAT:
            found = self.signature.get("format")
            raise UserError(f"{path} has format {found}, this version reads {FORMAT}; export again")
        if "target" in self.signature:
            raise UserError(f"{path} is for another runtime ({self.signature['target']}); export without --format")
        self.version: str = manifest["version"]
        self.inputs = spec_from_json(self.signature["inputs"])
        self.outputs = spec_from_json(self.signature["outputs"])
        self._rows = {n: s["rows"] for n, s in self.signature["inputs"].items() if "rows" in s}
        program = _program(path, PROGRAM, signature=self.signature)
        self.forward = Forward(program, weights=_read(path / WEIGHTS), inputs=self.inputs, max_batch=max_batch)
        self._request: Forward | None = None

    @property
    def features(self) -> Features:
        """As the training source declared them, those that the model reads."""
        return features_from_json(self.signature["features"])

    @property
    def vocabularies(self) -> Path | None:
        folder = self.path / VOCABULARIES
        return folder if folder.is_dir() else None

    def __call__(self, batch: Rows) -> dict[str, np.ndarray]:
        """Outputs of the encoded rows, in their order. Batches are padded to powers of two."""
        self.check_ids(batch)
        return self.forward(batch)

    def request(self, batch: Rows) -> dict[str, np.ndarray]:
        """Outputs of many candidates for one user: arrays of the user and the context have one row.

        The user's part is computed once. Needs an artefact exported with --request.
        """
        if self._request is None:
            shared = self.signature.get("request", {}).get("shared")
            if shared is None:
                raise UserError(f"{self.path} has no program for requests; export with --request")
            program = _program(self.path, REQUEST, signature=self.signature)
            weights, most = self.forward.weights, self.forward.max_batch
            self._request = Forward(program, weights=weights, inputs=self.inputs, max_batch=most, shared=shared)
        self.check_ids(batch)
        return self._request(batch)

    def check_ids(self, batch: Rows) -> None:
        """Raises UserError where an id has no row: a gather would answer with another row's or with NaN."""
        for name, size in self._rows.items():
            ids = np.asarray(batch.get(name, ()))
            if ids.size and not 0 <= ids.min() <= ids.max() < size:
                raise UserError(f"input {name!r} holds ids {ids.min()}..{ids.max()}, the model has rows 0..{size - 1}")

    def check(self) -> None:
        """Scores the stored batch and refuses to go on if this machine computes something else."""
        stored = _read(self.path / SELFCHECK)
        batch = {n.removeprefix("input/"): a for n, a in stored.items() if n.startswith("input/")}
        same = jax.default_backend() == self.signature["selfcheck_platform"]
        tolerance = SAME_PLATFORM if same else OTHER_PLATFORM
        got = self.forward(batch)
        for name, value in got.items():
            wanted = stored[f"output/{name}"]
            # Ids of a top-k may swap where two scores are nearly equal; the scores beside them may not differ.
            if np.issubdtype(wanted.dtype, np.floating):
                error = np.max(np.abs(value.astype(np.float64) - wanted) / (1 + np.abs(wanted)), initial=0)
                if not error <= tolerance:
                    raise UserError(
                        f"{self.path} fails its self-check on {jax.default_backend()}: output {name!r} is off by "
                        f"{error:.2g}, allowed {tolerance:.0e}"
                    )


def load(path: str | Path, *, max_batch: int = 8192, selfcheck: bool = True) -> Artifact:
    """Opens a version folder, or the latest version under a folder of them."""
    artifact = Artifact(resolve(Path(path)), max_batch=max_batch)
    if selfcheck:
        artifact.check()
    return artifact


def resolve(path: Path) -> Path:
    """The version folder that `path` means."""
    return versions.resolve(path, again="python -m serve export WORKDIR writes an artefact")


def is_artifact(path: Path) -> bool:
    return (path / SIGNATURE).is_file() or ((path / LATEST).is_file() and (resolve(path) / SIGNATURE).is_file())


def _program(path: Path, name: str, *, signature: dict[str, Any]) -> Any:
    platform = jax.default_backend()
    platform = {"gpu": "cuda"}.get(platform, platform)
    if platform not in signature["platforms"]:
        raise UserError(
            f"{path} was exported for {', '.join(signature['platforms'])}, this machine computes on {platform}; "
            f"export with --platforms {platform}"
        )
    try:
        return jax.export.deserialize(bytearray((path / name).read_bytes())).call
    except Exception as error:  # deserialize raises whatever its parser meets
        raise UserError(
            f"{path / name} cannot be read by jax {jax.__version__}: it was written by "
            f"{signature['versions']['jax']}, and an artefact opens in the same or a later version "
            f"({str(error).splitlines()[0][:120]})"
        ) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
