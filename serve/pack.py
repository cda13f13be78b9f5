"""Writes an artefact from a plain function, its weights and a batch to check it by."""

import hashlib
import platform as host
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from safetensors.numpy import save_file

from data.errors import UserError
from data.manifest import checksums, digest, write_json, write_manifest
from serve.artifact import PROGRAM, REQUEST, SELFCHECK, SIGNATURE, VOCABULARIES, WEIGHTS
from serve.files import settle, staged
from serve.forward import SMALLEST, Forward, Inputs, Rows
from serve.signature import FORMAT, spec_json
from serve.versions import point

Function = Callable[[dict[str, jax.Array], dict[str, jax.Array]], Mapping[str, jax.Array]]

PLATFORMS = ("cpu", "cuda", "tpu")


def pack(
    output: Path,
    *,
    function: Function,
    weights: Mapping[str, np.ndarray],
    inputs: Inputs,
    rows: Mapping[str, int],
    sample: Mapping[str, np.ndarray],
    step: int,
    about: Mapping[str, Any],
    platforms: tuple[str, ...] = PLATFORMS,
    vocabularies: Path | None = None,
    shared: Collection[str] | None = None,
) -> Path:
    """Writes output/<version>/ and points output/latest at it. Equal content gets the same version.

    `rows` bounds the ids of an input, `sample` is the batch of the self-check, `about` joins the signature. `shared`
    names the inputs that a request holds once, and adds a program that takes them so.
    """
    weights = {name: np.asarray(a) for name, a in weights.items()}
    kept = inputs_read(function, weights=weights, inputs=inputs)
    inputs = {n: i for n, i in inputs.items() if n in kept}
    exported = _export(function, weights=weights, inputs=inputs, platforms=platforms)
    forward = Forward(exported.call, weights=weights, inputs=inputs)
    sample = {n: np.asarray(sample[n], dtype) for n, (_, dtype) in inputs.items()}
    programs = {PROGRAM: exported}
    if shared is not None:
        once = sorted(n for n in inputs if n in shared)
        if not once or len(once) == len(inputs):
            raise UserError(
                f"a request needs inputs of the item and of the user or context; the model reads {', '.join(inputs)}"
            )
        programs[REQUEST] = _export(function, weights=weights, inputs=inputs, platforms=platforms, shared=once)
        _check_request(programs[REQUEST].call, forward, sample=sample, shared=once)
        about = {**about, "request": {"shared": once}}
    signature = {
        **about,
        "format": FORMAT,
        "step": step,
        "inputs": {n: {**s, **({"rows": rows[n]} if n in rows else {})} for n, s in spec_json(inputs).items()},
        "outputs": spec_json(forward.outputs()),
        "platforms": list(platforms),
        "selfcheck_platform": jax.default_backend(),
        "versions": {"python": host.python_version(), **{p: version(p) for p in ("jax", "jaxlib", "flax", "numpy")}},
    }
    with staged(output) as work:
        save_file(weights, work / WEIGHTS)
        checks = {f"input/{n}": a for n, a in sample.items()} | {f"output/{n}": a for n, a in forward(sample).items()}
        save_file({n: np.ascontiguousarray(a) for n, a in checks.items()}, work / SELFCHECK)
        write_json(work / SIGNATURE, signature)
        if vocabularies is not None:
            shutil.copytree(vocabularies, work / VOCABULARIES)
        texts = {file: _text_digest(program) for file, program in programs.items()}
        name = f"{step:08d}-{digest({**checksums(work), **texts})}"
        for file, program in programs.items():
            (work / file).write_bytes(program.serialize())
        write_manifest(work, version=name)
        settle(work, output / name)
    point(output, name=name)
    return output / name


def inputs_read(function: Function, *, weights: Mapping[str, np.ndarray], inputs: Inputs) -> set[str]:
    """The inputs that the program needs: a model may ignore features that its source declares."""
    batch = {n: jax.ShapeDtypeStruct((SMALLEST, *shape), dtype) for n, (shape, dtype) in inputs.items()}
    # With a symbolic batch every input is kept, since its size could be asked for.
    kept = jax.export.export(jax.jit(function))(dict(weights), batch).module_kept_var_idx
    return {name for i, name in enumerate(sorted(inputs)) if i + len(weights) in kept}


def _text_digest(exported: jax.export.Exported) -> str:
    """Of the computation alone, without the lines of source that it was traced from."""
    text = re.sub(r"loc\((?:[^()]|\([^()]*\))*\)|^#loc.*$", "", exported.mlir_module(), flags=re.MULTILINE)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_request(program: Function, plain: Forward, *, sample: Rows, shared: Collection[str]) -> None:
    """One user of the sample meets all of its candidates, in both programs."""
    request = Forward(program, weights=plain.weights, inputs=plain.inputs, shared=shared)
    last = len(next(iter(sample.values()))) - 1
    user = {n: a[last:] if n in shared else a for n, a in sample.items()}
    tiled = {n: np.repeat(a, last + 1, axis=0) if n in shared else a for n, a in user.items()}
    wanted = plain(tiled)
    for name, value in request(user).items():
        if value.shape != wanted[name].shape or not np.allclose(value, wanted[name], rtol=1e-5, atol=1e-5):
            raise UserError(
                f"the model does not score a request as it scores its rows: output {name!r} differs; "
                "export without --request, or join the user's part by modules.layers.fields"
            )


def _export(
    function: Function,
    *,
    weights: Mapping[str, np.ndarray],
    inputs: Inputs,
    platforms: tuple[str, ...],
    shared: Collection[str] = (),
) -> jax.export.Exported:
    # In a request, shapes are compared with the user's 1: a single candidate is padded to more.
    (b,) = jax.export.symbolic_shape("b", constraints=["b >= 2"] if shared else [])
    batch = {n: jax.ShapeDtypeStruct((1 if n in shared else b, *shape), dtype) for n, (shape, dtype) in inputs.items()}
    specs = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in weights.items()}

    def attempt(targets: tuple[str, ...]) -> jax.export.Exported:
        return jax.export.export(jax.jit(function), platforms=targets)(specs, batch)

    try:
        return attempt(platforms)
    except Exception as error:  # lowering rules raise many kinds; say for which platforms
        failed = {}
        for one in platforms:
            try:
                attempt((one,))
            except Exception as reason:
                failed[one] = str(reason).splitlines()[0][:200]
        if not failed:
            raise UserError(f"the model cannot be exported for {', '.join(platforms)} together: {error}") from error
        good = [p for p in platforms if p not in failed]
        hint = f"; it can for --platforms {','.join(good)}" if good else ""
        reasons = "; ".join(f"{p}: {r}" for p, r in failed.items())
        raise UserError(f"the model cannot be exported for {', '.join(failed)}{hint} ({reasons})") from error
