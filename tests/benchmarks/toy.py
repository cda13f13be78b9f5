"""Trains one model on columns in memory, without a workdir: for benchmarks on made-up data."""

import jax
import jax.numpy as jnp
import numpy as np

from data.features import Features
from data.sources import SourceConfig
from modules.base import ModelConfig
from train.experiment import Experiment
from train.held_out import HeldOut
from train.metrics.auc import ScoreCounts
from train.optim import Optimizer
from train.program import Program, make_predict
from train.sharding import Mesh
from train.tasks.base import Task
from train.tasks.pointwise import Pointwise

Columns = dict[str, np.ndarray]


class Toy:
    """One model and its optimizer, compiled once for any number of seeds."""

    def __init__(
        self,
        model: ModelConfig,
        *,
        features: Features,
        optimizer: Optimizer,
        epochs: int,
        batch: int,
        rows: int,
        shuffle: bool = True,
        task: Task = Pointwise(),
        held_out: HeldOut | None = None,
    ):
        self.steps, self.epochs, self.batch, self.shuffle = rows // batch, epochs, batch, shuffle
        experiment = Experiment(
            model=model,
            task=task,
            source=SourceConfig(),
            optimizer=optimizer,
            steps=self.steps * epochs,
            held_out=held_out,
        )
        self.mesh = Mesh(data=1).make(devices=jax.devices()[:1])
        self.program = Program(experiment, features=features, mesh=self.mesh)
        # A whole epoch is one call: on a busy machine the calls cost more than such small steps do.
        self._epoch = jax.jit(lambda state, batches: jax.lax.scan(self.program.train_step, state, batches)[0])

    def fit(self, train: Columns, *, test: Columns, seed: int) -> tuple[Columns, Columns]:
        """Predictions of the test rows after the last epoch, and the parameters."""
        rng = np.random.default_rng(seed)
        count = self.steps * self.batch
        with jax.set_mesh(self.mesh):
            state = self.program.init(seed)
            for _ in range(self.epochs):
                order = rng.permutation(count) if self.shuffle else np.arange(count)
                shape = (self.steps, self.batch)
                batches = {n: jnp.asarray(c[:count][order].reshape(*shape, *c.shape[1:])) for n, c in train.items()}
                state = self._epoch(state, batches)
            predictions = make_predict(self.program, self.program.weights(state))(test)
            return predictions, {path: np.asarray(p) for path, p in state["params"].items()}


def auc(label: np.ndarray, *, score: np.ndarray) -> float:
    counts = ScoreCounts()
    counts.add(score, negative=1.0 - label, positive=label.astype(np.float64))
    return counts.auc()
