"""From a workdir alone to an artefact that needs none of our model code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data.features import Categorical, Feature, Features, Sequence, Time
from serve.inputs import needed
from serve.pack import PLATFORMS, inputs_read, pack
from serve.trained import Step, Trained
from train.snapshot import dump

SAMPLE_ROWS = 16


def export(
    workdir: Path, *, output: Path | None = None, step: Step = "best", platforms: tuple[str, ...] = PLATFORMS
) -> Path:
    """Writes output/<version> (default: WORKDIR/export) and returns it."""
    trained = Trained(workdir, step=step)
    inputs = model_inputs(trained)
    features = needed(trained.features, inputs=inputs)
    return pack(
        output or workdir / "export",
        function=trained.serve,
        weights=trained.weights,
        inputs=inputs,
        rows=id_bounds(features),
        sample=random_rows(features, rows=SAMPLE_ROWS),
        step=trained.step,
        about={
            "model": _name(trained.experiment.model),
            "task": _name(trained.experiment.task),
            "config": trained.config,
            "features": dump(features),
        },
        platforms=platforms,
        vocabularies=trained.vocabularies,
    )


def model_inputs(trained: Trained) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The arrays that the model reads. Times are offered too, for the models that ask for them."""
    offered = trained.features.arrays(inputs_only=True)
    for feature in trained.features.all:
        if isinstance(feature, Time):
            offered |= feature.arrays()
    read = inputs_read(trained.serve, weights=trained.weights, inputs=offered)
    return {name: spec for name, spec in offered.items() if name in read}


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


def _name(config: object) -> str:
    return f"{type(config).__module__}:{type(config).__qualname__}"
