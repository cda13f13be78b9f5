"""How fast a trained model scores: the compiled forward over an evaluator's rows, which wait in memory."""

import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.pipeline import Loader
from train.checkpoint import load_weights
from train.experiment import Experiment
from train.program import Program, make_predict
from train.workdir import CHECKPOINTS

PASSES, SECONDS = 3, 1.0


def rows_per_second(experiment: Experiment, *, workdir: Path, evaluator: str, rows: int = 1 << 18) -> float:
    """From arrays in memory to scores in memory, by the best weights, without compilation."""
    measured = experiment.evals[evaluator]
    batches = Loader(batch_size=measured.batch_size, transforms=measured.transforms).once(measured.source.make())
    mesh = experiment.mesh.make()
    with jax.set_mesh(mesh):
        program = Program(experiment, features=batches.features, mesh=mesh)
        weights = jax.device_put(program.weights(load_weights(workdir / CHECKPOINTS)))
        held = list(islice(batches, max(1, rows // measured.batch_size)))
        batches.close()
        return _rate(make_predict(program, weights), held)


def _rate(predict: Callable[[Mapping[str, np.ndarray]], Any], batches: list[dict[str, np.ndarray]]) -> float:
    """Of the fastest pass, since other work on the machine can only slow one down."""
    predict(batches[0])  # compiles
    total = sum(len(next(iter(batch.values()))) for batch in batches)
    best, begun, passes = 0.0, time.perf_counter(), 0
    while passes < PASSES or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        for batch in batches:
            predict(batch)
        best, passes = max(best, total / (time.perf_counter() - start)), passes + 1
    return best
