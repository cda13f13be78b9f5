"""Opens a training workdir for serving: the experiment it stores, its weights, and its one forward."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chz
import jax
import numpy as np
from jax.sharding import AxisType

from data.errors import UserError
from data.features import Features
from data.manifest import read_json
from data.sources import Source, SourceConfig
from modules.layers.lora import LoRA
from serve.artifact import VOCABULARIES
from serve.forward import Forward
from serve.pack import inputs_read
from serve.signature import Step, weights_version
from train.calibration import Calibration
from train.checkpoint import load_weights, sound_step
from train.experiment import Experiment, load_experiment
from train.program import Program
from train.snapshot import fingerprint, load
from train.workdir import CHECKPOINTS, CONFIG, FEATURES


class Served:
    """A program's forward over one flat dict of weights, {"params/<path>": array, "stats/<path>": array}."""

    calibrated: tuple[str, Calibration] | None = None
    """The output that an artefact returns calibrated, and by which map."""

    def __init__(self, program: Program, *, weights: Mapping[str, Mapping[str, Any]]):
        self.program, self.experiment = program, program.experiment
        self.features: Features = program.features
        self.weights = {f"{kind}/{path}": np.asarray(a) for kind, part in weights.items() for path, a in part.items()}

    def predict(self, weights: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """What evaluators see."""
        return dict(self.program.predict(nested(weights), batch))

    def serve(self, weights: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """What an artefact returns; arrays that are not per row are left out."""
        outputs = self.experiment.task.serve(self.predict(weights, batch))
        if self.calibrated is not None:
            name, calibration = self.calibrated
            if name not in outputs:
                raise UserError(f"the calibration is of {name!r}, the model returns {', '.join(sorted(outputs))}")
            outputs = {**outputs, name: calibration.apply(outputs[name])}
        return {name: value for name, value in outputs.items() if value.ndim}

    def inputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """The arrays that `serve` reads."""
        offered = self.features.arrays(inputs_only=True)
        read = inputs_read(self.serve, weights=self.weights, inputs=offered)
        return {name: spec for name, spec in offered.items() if name in read}

    def forward(self, *, max_batch: int) -> Forward:
        return Forward(self.serve, weights=self.weights, inputs=self.inputs(), max_batch=max_batch)


class Trained(Served):
    """One checkpoint of a run, on one device."""

    def __init__(self, workdir: Path, *, step: Step = "best"):
        self.path = workdir
        experiment, features = load_experiment(workdir), load_features(workdir)
        self.step = sound_step(workdir / CHECKPOINTS, step=step)
        stored = load_weights(workdir / CHECKPOINTS, step=self.step)
        program = Program(experiment, features=features, mesh=_one_device())
        program, weights = merged(program, program.weights(stored))
        super().__init__(program, weights=weights)
        self.config = fingerprint(read_json(workdir / CONFIG))

    @property
    def version(self) -> str:
        """Step, and digest of config and weights."""
        return weights_version(self.weights, step=self.step, config=self.config)

    @property
    def vocabularies(self) -> Path | None:
        folder = self.path / VOCABULARIES
        return folder if folder.is_dir() else None

    def named_source(self, name: str) -> SourceConfig:
        return declared_source(self.experiment, name=name, workdir=self.path)


def merged(program: Program, weights: Mapping[str, Mapping[str, Any]]) -> tuple[Program, Mapping[str, Any]]:
    """A model that was trained through adapters as the model itself, with their products in its kernels."""
    experiment = program.experiment
    if not isinstance(experiment.model, LoRA):
        return program, weights
    params = experiment.model.merged(weights["params"])
    # A plain optimizer, since patterns of this one may name adapters.
    plain = chz.replace(experiment, model=experiment.model.model, optimizer=type(experiment.optimizer)())
    return merged(Program(plain, features=program.features, mesh=program.mesh), {**weights, "params": params})


def declared_source(experiment: Experiment, *, name: str, workdir: Path) -> SourceConfig:
    """A source that the experiment declares: `train`, an evaluator's name, or an evaluator's further source."""
    known: dict[str, SourceConfig] = {"train": experiment.source}
    for key, evaluator in experiment.evals.items():
        for part, value in sorted(_fields(evaluator).items()):
            if isinstance(value, SourceConfig):
                known[key if part == "source" else f"{key}/{part}"] = value
    if name not in known:
        raise UserError(f"{workdir} declares no source {name!r}; it has {', '.join(known)}")
    return known[name]


def load_features(workdir: Path) -> Features:
    features = load(read_json(workdir / FEATURES))
    if not isinstance(features, Features):
        raise UserError(f"{workdir / FEATURES} is damaged: it does not hold Features")
    return features


def inputs_in(source: Source, *, features: Features) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The model's inputs that the source has: one tower of two, where it has only that tower's."""
    given = source.features.arrays()
    inputs = {name: spec for name, spec in features.arrays(inputs_only=True).items() if name in given}
    if not inputs:
        raise UserError(f"the source has {', '.join(given)}, none of which is an input of the model")
    return inputs


def nested(weights: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"params/mlp/w": a} as {"params": {"mlp/w": a}, "stats": {}}."""
    out: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
    for name, value in weights.items():
        kind, _, path = name.partition("/")
        out[kind][path] = value
    return out


def _fields(config: Any) -> dict[str, Any]:
    return {f.logical_name: getattr(config, f.logical_name) for f in chz.chz_fields(type(config)).values()}


def _one_device() -> jax.sharding.Mesh:
    return jax.make_mesh((1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=jax.local_devices()[:1])
