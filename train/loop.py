"""The loop. Its order is its documentation: evaluate, save, stop, next batch, step, log.

Saving before the iterator moves on is what makes resuming exact.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from data.errors import UserError
from data.sources import Source
from train import distributed
from train.checkpoint import Checkpointer
from train.evaluators import save_curves
from train.experiment import Experiment
from train.log import Logger
from train.program import Program, State, make_predict
from train.sharding import put_batch
from train.snapshot import dump
from train.workdir import Workdir

Say = Callable[[str], None]


@dataclass
class Outcome:
    """How a run ended, and its last figures."""

    step: int
    finished: bool
    metrics: Mapping[str, float] = field(default_factory=dict)


def train(experiment: Experiment, *, workdir: Path, say: Say = print) -> Outcome:
    """Runs `experiment` in `workdir` to its end, from its beginning or from where it stopped."""
    first = jax.process_index() == 0
    say = say if first else _silent
    mesh = experiment.mesh.make()
    with (
        Workdir(workdir, access="own" if first else "share") as folder,
        jax.set_mesh(mesh),
        distributed.StopRequest(agree_every=experiment.log.every) as stop,
    ):
        folder.check_config(dump(experiment), report=say)
        run = _Run(experiment, folder=folder, mesh=mesh, stop=stop, say=say)
        try:
            return run.go()
        finally:
            run.close()


class _Run:
    """The parts of one run, from its opening to its end."""

    def __init__(self, experiment: Experiment, *, folder: Workdir, mesh: jax.sharding.Mesh, stop, say: Say):
        self.experiment, self.folder, self.mesh, self.stop, self.say = experiment, folder, mesh, stop, say
        source = experiment.source.make()
        self.batches = experiment.loader.open(
            source, process_index=jax.process_index(), process_count=jax.process_count()
        )
        self.program = Program(experiment, features=self.batches.features, mesh=mesh)
        folder.write_features(dump(self.batches.features))
        if jax.process_index() == 0:
            _keep_beside_the_model(source, folder=folder.path)
        self.checkpoints = Checkpointer(folder.checkpoints, config=experiment.checkpoint, report=say)
        self.state, self.start, self.clock = self._begin()
        self.logger = Logger(
            folder.path,
            config=experiment.log,
            steps=experiment.steps,
            start=self.start,
            batch_size=experiment.loader.batch_size,
        )
        self.metrics: dict[str, float] = dict(self.clock.pop("metrics", {}))

    def _begin(self) -> tuple[State, int, dict[str, Any]]:
        """The newest sound checkpoint of the workdir, else the weights that init_from names, else scratch."""
        found = self.checkpoints.restore(self.program.target())
        if found is not None:
            self.batches.set_state(found.iterator)
            self.say(f"resumed at step {found.step}")
            return found.state, found.step, dict(found.clock)
        state = self.program.init(self.experiment.seed)
        if self.experiment.init_from is not None:
            state, loaded = self.experiment.init_from.apply(state)
            for line in (f"weights of {self.experiment.init_from.workdir}:", *loaded.lines()):
                self.say(line)
        return state, 0, {"seconds": 0.0}

    def go(self) -> Outcome:
        steps = self.experiment.steps
        begun = time.perf_counter() - self.clock["seconds"]
        self.say(self._headline())
        for step in range(self.start, steps + 1):
            stopping = self.stop.agreed(step)
            found = {} if stopping else self._evaluate(step)
            ended = step == steps or self._patience_is_over()
            if stopping or ended or found or self.experiment.checkpoint.due(step):
                self.clock["seconds"] = time.perf_counter() - begun
                self._save(step, found=found, last=ended or stopping)
            if ended or stopping:
                break
            waited = time.perf_counter()
            batch = next(self.batches, None)
            waited = time.perf_counter() - waited
            if batch is None:
                raise UserError(f"the data ended after {step} of {steps} steps: raise loader.epochs or lower steps")
            self.state, logs = self.program.train_step(self.state, put_batch(batch, mesh=self.mesh))
            self.logger.train(step + 1, logs, waited=waited)
            if step % self.experiment.log.every == 0:
                self.checkpoints.check()
        distributed.barrier("end of run")
        return Outcome(step=step, finished=ended, metrics=self.metrics)

    def _headline(self) -> str:
        sizes = self.program.abstract_state["params"].values()
        parameters = sum(a.size for a in sizes)
        model = type(self.experiment.model).__name__
        devices = f"{self.mesh.size} {jax.devices()[0].platform} device{'s' if self.mesh.size > 1 else ''}"
        return f"{model}: {parameters:,} parameters on {devices}, {self.experiment.steps} steps into {self.folder.path}"

    def _evaluate(self, step: int) -> dict[str, float]:
        """Figures of the evaluators whose turn it is; none where this step was measured before a resumption."""
        last = step == self.experiment.steps
        due = {name: e for name, e in self.experiment.evals.items() if last or (step and e.due(step))}
        if not due or self.clock.get("evaluated") == step:
            return {}
        self.logger.flush()  # a loss that is not finite is named before its scores are measured
        predict = make_predict(self.program, self.program.weights(self.state))
        found: dict[str, float] = {}
        for name, evaluator in due.items():
            evaluation = evaluator.run(predict, progress=self.logger.evaluating(name))
            save_curves(self.folder.path, name=name, curves=evaluation.curves)
            evaluation = evaluation.under(name)
            self.logger.evaluation(step, evaluation.values, reasons=evaluation.reasons)
            found |= evaluation.values
        self.metrics |= found
        self.clock["evaluated"] = step
        self._judge(found, last=last)
        return found

    def _judge(self, found: Mapping[str, float], *, last: bool) -> None:
        """Keeps, with the clock, the best value for early stopping and how many evaluations have passed since."""
        stop = self.experiment.early_stop
        if stop is None:
            return
        if stop.metric not in found:
            if last or stop.metric.split("/")[0] in {name.split("/")[0] for name in found}:
                raise UserError(f"early_stop.metric is {stop.metric!r}, but there is {', '.join(sorted(found))}")
            return
        value, before = found[stop.metric], self.clock.get("early_stop")
        sign = 1.0 if stop.mode == "max" else -1.0
        if before is None or sign * (value - before["best"]) > stop.min_delta:
            self.clock["early_stop"] = {"best": value, "worse": 0}
        else:
            self.clock["early_stop"] = {"best": before["best"], "worse": before["worse"] + 1}

    def _patience_is_over(self) -> bool:
        stop = self.experiment.early_stop
        return stop is not None and self.clock.get("early_stop", {}).get("worse", 0) >= stop.patience

    def _save(self, step: int, *, found: Mapping[str, float], last: bool) -> None:
        self.logger.flush()  # raises on a loss that is not finite, before it can be saved
        self.checkpoints.save(
            step,
            state=self.state,
            iterator=self.batches.get_state(),
            clock={**self.clock, "metrics": self.metrics},
            config=dump(self.experiment),
            metrics=found or None,
            wait=last,
        )

    def close(self) -> None:
        self.batches.close()
        self.logger.close()
        self.checkpoints.close()


def _silent(line: str) -> None:
    """What processes other than the first say."""


def _keep_beside_the_model(source: Source, *, folder: Path) -> None:
    """Vocabularies, which serving encodes by, and the rows that reading set aside, where the source has such."""
    vocabularies, rejects = getattr(source, "vocabularies", None), getattr(source, "rejects", None)
    if vocabularies:
        vocabularies.save(folder / "vocabularies")
    if rejects is not None and rejects.count:
        rejects.write(folder / "rejects.jsonl")
