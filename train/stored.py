"""What a finished run predicts of given rows: for stages that go on with a model's answers."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from train.checkpoint import load_weights
from train.experiment import load_experiment
from train.program import Program, make_predict
from train.sharding import Mesh
from train.snapshot import load
from train.workdir import CHECKPOINTS, FEATURES


def predictions(workdir: Path, *, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of all `rows` at once, by the best weights, on one device; `rows` need not have what only training reads."""
    experiment = load_experiment(workdir)
    mesh = Mesh().make(devices=jax.devices()[:1])
    features = load(json.loads((workdir / FEATURES).read_text()))
    stored = load_weights(workdir / CHECKPOINTS)
    weights = jax.device_put({"params": {**stored["params"], **stored["ema"]}, "stats": stored["stats"]})
    with jax.set_mesh(mesh):
        return make_predict(Program(experiment, features=features, mesh=mesh), weights)(rows)
