"""From a workdir alone to an artefact that needs none of our model code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.features import Categorical, Feature, Features, Sequence
from serve.embed import vector_of
from serve.inputs import needed
from serve.pack import PLATFORMS, inputs_read, pack
from serve.signature import Step
from serve.trained import Served, Trained
from train.calibrate import read_calibration
from train.snapshot import dump

SAMPLE_ROWS = 16


def export(
    workdir: Path,
    *,
    output: Path | None = None,
    step: Step = "best",
    platforms: tuple[str, ...] = PLATFORMS,
    calibration: Path | None = None,
    request: bool = False,
) -> Path:
    """Writes output/<version> (default: WORKDIR/export) and returns it.

    `request` adds a program for one user and many candidates.
    """
    trained, about = open_workdir(workdir, step=step, calibration=calibration)
    return export_model(
        trained,
        output=output or workdir / "export",
        step=trained.step,
        about=about,
        platforms=platforms,
        vocabularies=trained.vocabularies,
        request=request,
    )


def export_vectors(
    workdir: Path,
    *,
    vectors: tuple[str, ...],
    output: Path | None = None,
    step: Step = "best",
    platforms: tuple[str, ...] = PLATFORMS,
) -> Path:
    """One side of a model as an artefact that gives {"vector"} and takes what that side reads, such as a query's.

    Its signature names the model version that the vectors of the other side carry, so that an index of another training
    run is told.
    """
    trained = Trained(workdir, step=step)
    function = vector_of(trained, vectors=vectors)
    offered = trained.features.arrays(inputs_only=True)
    read = inputs_read(function, weights=trained.weights, inputs=offered)
    inputs = {name: spec for name, spec in offered.items() if name in read}
    features = needed(trained.features, inputs=inputs)
    return pack(
        output or workdir / "-".join(("export", *vectors)),
        function=function,
        weights=trained.weights,
        inputs=inputs,
        rows=id_bounds(features),
        sample=random_rows(features, rows=SAMPLE_ROWS),
        step=trained.step,
        about={
            "config": trained.config,
            "vectors": {"model": trained.version, "outputs": list(vectors)},
            **described(trained, features=features),
        },
        platforms=platforms,
        vocabularies=trained.vocabularies,
    )


def export_model(
    model: Served,
    *,
    output: Path,
    step: int,
    about: Mapping[str, Any] = {},
    platforms: tuple[str, ...] = PLATFORMS,
    vocabularies: Path | None = None,
    request: bool = False,
) -> Path:
    """The same for a program and weights that are in memory."""
    inputs = model.inputs()
    features = needed(model.features, inputs=inputs)
    return pack(
        output,
        function=model.serve,
        weights=model.weights,
        inputs=inputs,
        rows=id_bounds(features),
        sample=random_rows(features, rows=SAMPLE_ROWS),
        step=step,
        about={**about, **described(model, features=features)},
        platforms=platforms,
        vocabularies=vocabularies,
        shared=held_once(features) if request else None,
    )


def open_workdir(workdir: Path, *, step: Step, calibration: Path | None) -> tuple[Trained, dict[str, Any]]:
    """A run, with its calibration where there is one, and what an artefact says of both."""
    trained = Trained(workdir, step=step)
    about: dict[str, Any] = {"config": trained.config}
    if calibration is not None:
        score, fitted = trained.calibrated = read_calibration(calibration, step=trained.step, workdir=workdir)
        about["calibration"] = {"score": score, "by": dump(fitted)}
    return trained, about


def described(model: Served, *, features: Features) -> dict[str, Any]:
    """What an artefact says of the model and of what it reads."""
    experiment = model.experiment
    return {
        "model": model_name(experiment.model),
        "task": model_name(experiment.task),
        "features": dump(features),
    }


def held_once(features: Features) -> list[str]:
    """Arrays of which a request holds one row: those of the user and of the context."""
    return [name for f in features.all if f.role != "item" for name in f.arrays()]


def id_bounds(features: Features) -> dict[str, int]:
    """Array of ids to the number of rows of its table."""
    inner = {f.name: f.of if isinstance(f, Sequence) else f for f in features.all}
    return {name: f.size for name, f in inner.items() if isinstance(f, Categorical) or f.kind == "text"}


def random_rows(features: Features, *, rows: int) -> dict[str, np.ndarray]:
    """Rows of the right kind for the self-check: it compares two computations, so what they say does not matter."""
    rng = np.random.default_rng(0)
    batch: dict[str, np.ndarray] = {}
    for feature in features.all:
        batch |= _random(feature, rows=rows, rng=rng)
    return batch


def _random(feature: Feature, *, rows: int, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    inner = feature.of if isinstance(feature, Sequence) else feature
    shape = (rows, *feature.shape)
    value: np.ndarray
    if feature.kind == "image":
        value = rng.integers(0, 256, shape)
    elif inner.size:
        value = rng.integers(0, inner.size, shape)
    elif np.issubdtype(feature.dtype, np.integer):
        value = rng.integers(0, 1 << 20, shape)
    else:
        value = rng.normal(size=shape)
    if not feature.max_len:
        return {feature.name: value.astype(feature.dtype)}
    lengths = np.arange(rows) % (feature.max_len + 1)
    held = np.arange(feature.max_len) < lengths[:, None]
    value = np.where(held.reshape(held.shape + (1,) * (value.ndim - 2)), value, 0)
    return {feature.name: value.astype(feature.dtype), f"{feature.name}/length": lengths.astype(np.int32)}


def model_name(config: object) -> str:
    """Where its class stands."""
    return f"{type(config).__module__}:{type(config).__qualname__}"
