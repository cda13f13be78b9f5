"""How fast models train and score, measured side by side: in turns, in one process, on batches that wait in memory."""

import time
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import chz

from data.errors import UserError
from data.pipeline import Loader
from train.experiment import Experiment
from train.pipeline import Results, Say, Stage
from train.workdir import write_json


@chz.chz
class Speed(Stage):
    """Rows per second of a train step and of the forward pass, without compilation, input and evaluation.

    Each model's are in `<name>.json`. The fastest round counts: other work on the machine can only slow one down, and
    turns share it out.
    """

    experiments: Mapping[str, Experiment] = chz.field(doc="by the name of the stage that trains it")
    evaluator: str = chz.field(default="valid", doc="whose rows and batch size are scored")
    steps: int = chz.field(default=12, doc="train steps of a round")
    batches: int = chz.field(default=6, doc="batches scored in a round")
    rounds: int = 5

    @chz.validate
    def _something_is_timed(self):
        if min(self.steps, self.batches, self.rounds) < 1:
            raise ValueError("steps, batches and rounds are at least 1")

    def among(self, stages: Collection[str]) -> "Speed | None":
        kept = {name: experiment for name, experiment in self.experiments.items() if name in stages}
        return chz.replace(self, experiments=kept) if kept else None

    def run(self, *, out: Path, say: Say) -> Results:
        timed = {}
        for name, experiment in self.experiments.items():
            say(f"{name}: compiling")
            timed[name] = _Timed(experiment, speed=self)
        rates: dict[str, dict[str, float]] = {name: {} for name in timed}
        for number in range(1, self.rounds + 1):
            for name, each in timed.items():
                for what, (wall, cpu) in (("train", each.train()), ("score", each.score())):
                    for figure, value in ((f"{what}/rows_per_second", wall), (f"{what}/rows_per_cpu_second", cpu)):
                        rates[name][figure] = max(value, rates[name].get(figure, 0.0))
            say(f"round {number}/{self.rounds}")
        for name, found in rates.items():
            found["train/seconds_per_epoch"] = timed[name].rows / found["train/rows_per_second"]
            shown = (f"{found[f'{what}/rows_per_second']:,.0f} rows/s" for what in ("train", "score"))
            say(f"{name}: trains {', scores '.join(shown)}")
            write_json(out / f"{name}.json", value=found)
        return {f"{name}/{figure}": value for name, found in rates.items() for figure, value in found.items()}


class _Timed:
    """One model, compiled, with the batches of a round."""

    def __init__(self, experiment: Experiment, *, speed: Speed):
        import jax  # heavy, and a pipeline is read without it

        from train.program import Program, make_predict

        if speed.evaluator not in experiment.evals:
            raise UserError(f"no evaluator {speed.evaluator!r}; there are {', '.join(experiment.evals)}")
        measured = experiment.evals[speed.evaluator]
        source = experiment.source.make()
        self.rows = len(source)
        batches = experiment.loader.open(source)
        self.mesh = experiment.mesh.make()
        with jax.set_mesh(self.mesh):
            self.program = Program(experiment, features=batches.features, mesh=self.mesh)
            self.state: Any = self.program.init(experiment.seed)
            self.training = list(islice(batches, speed.steps))
            batches.close()
            once = Loader(batch_size=measured.batch_size, transforms=measured.transforms).once(measured.source.make())
            self.scored = list(islice(once, speed.batches))
            once.close()
            weights = self.program.weights(self.state)
            self.predict = make_predict(self.program, jax.tree.map(jax.numpy.copy, weights))  # training gives its away
        self.train()
        self.score()

    def train(self) -> tuple[float, float]:
        """Rows per second, and per second of processor time."""
        import jax

        from train.sharding import put_batch

        with jax.set_mesh(self.mesh):
            start = _now()
            for batch in self.training:
                self.state, logs = self.program.train_step(self.state, put_batch(batch, mesh=self.mesh))
            jax.block_until_ready((self.state, logs))
        return _rates(self.training, start)

    def score(self) -> tuple[float, float]:
        import jax

        with jax.set_mesh(self.mesh):
            start = _now()
            for batch in self.scored:
                self.predict(batch)
        return _rates(self.scored, start)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _rates(batches: list, start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = (now - then for now, then in zip(_now(), start, strict=True))
    rows = sum(len(next(iter(batch.values()))) for batch in batches)
    return rows / wall, rows / max(cpu, 1e-9)
