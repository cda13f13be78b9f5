"""The loop. Its order is its documentation: evaluate, save, stop, look at all rows, next batch, step, log.

Saving before the iterator moves on is what makes resuming exact. Only some tasks look at all rows, before each pass.
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
from train.before_pass import BeforePass
from train.checkpoint import Checkpointer
from train.evaluators import Evaluator, save_curves
from train.experiment import Experiment
from train.judge import Judge
from train.log import Logger
from train.program import Program, State, make_predict
from train.row_counts import count_rows
from train.sharding import put_batch
from train.snapshot import dump
from train.workdir import Workdir

Say = Callable[[str], None]


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run; `metrics` has the figures of every evaluator once the run is finished."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and its figures."""

    step: int
    finished: bool
    metrics: Mapping[str, float] = field(default_factory=dict)  # the last of each evaluator
    best: Best | None = None  # where the experiment names a metric to go by
    speed: Mapping[str, float] = field(default_factory=dict)  # without compilation, evaluation and saving
    stopped: bool = False  # on request, be it so late that the run is finished all the same: nothing may follow it

    def results(self) -> dict[str, float]:
        """What comparisons read: the figures of the best evaluation, of the last where there is no best."""
        figures = self.metrics if self.best is None else {**self.best.metrics, "best/step": float(self.best.step)}
        return {**figures, **self.speed}


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
        self.rows = len(source)
        self.batches = experiment.loader.open(
            source, process_index=jax.process_index(), process_count=jax.process_count()
        )
        self.program = Program(experiment, features=self.batches.features, mesh=mesh)
        self.before_pass = BeforePass(self.program, loader=experiment.loader, source=source, say=say)
        folder.write_features(dump(self.batches.features))
        if jax.process_index() == 0:
            _keep_beside_the_model(source, folder=folder.path)
        self.checkpoints = Checkpointer(folder.checkpoints, config=experiment.checkpointing(), report=say)
        self.state, self.start, self.clock = self._begin(source)
        self.judge = Judge(experiment, clock=self.clock)
        self.logger = Logger(
            folder.path,
            config=experiment.log,
            steps=experiment.steps,
            start=self.start,
            batch_size=experiment.loader.batch_size,
            timed=self.clock.get("timed", (0, 0.0)),
        )
        self.metrics: dict[str, float] = dict(self.clock.pop("metrics", {}))
        self.compiled: set[tuple] = set()

    def _begin(self, source: Source) -> tuple[State, int, dict[str, Any]]:
        """The newest sound checkpoint of the workdir, else the weights that init_from names, else scratch."""
        found = self.checkpoints.restore(self.program.target())
        if found is not None:
            self.batches.set_state(found.iterator)
            self.say(f"resumed at step {found.step}")
            return found.state, found.step, dict(found.clock)
        state = self.program.init(self.experiment.seed)
        if self.experiment.init_from is not None:
            state, loaded = self.experiment.init_from.apply(state)
            for line in (f"weights of {self.experiment.init_from.origin}:", *loaded.lines()):
                self.say(line)
        if self.program.counts_rows:
            counts = count_rows(self.program, loader=self.experiment.loader, source=source, say=self.say)
            state = self.program.with_occurrences(state, counts)
        return state, 0, {"seconds": 0.0}

    def go(self) -> Outcome:
        steps = self.experiment.steps
        begun = time.perf_counter() - self.clock["seconds"]
        self.say(self._headline())
        for step in range(self.start, steps + 1):
            stopping = self.stop.agreed(step)
            found = {} if stopping else self._evaluate(step)
            ended = not stopping and (step == steps or self.judge.stops())
            if ended:
                self._conclude(step)
            if stopping or ended or found or self.experiment.checkpoint.due(step):
                self.clock["seconds"] = time.perf_counter() - begun
                self._save(step, found=found, last=ended or stopping)
            if ended or stopping:
                break
            if self.before_pass.due(step):  # also after a resumption right here: the same weights give the same again
                self.logger.pause()
                self.state = self.before_pass(self.state, step=step)
            self.logger.go_on()
            waited = time.perf_counter()
            batch = next(self.batches, None)
            waited = time.perf_counter() - waited
            if batch is None:
                raise UserError(f"the data ended after {step} of {steps} steps: raise loader.epochs or lower steps")
            compiles = self._is_new(batch)
            if compiles:
                self.logger.pause()
            self.state, logs = self.program.train_step(self.state, put_batch(batch, mesh=self.mesh))
            self.logger.train(step + 1, logs, waited=waited, compiled=compiles)
            if step % self.experiment.log.every == 0:
                self.checkpoints.check()
        distributed.barrier("end of run")
        best = self.judge.best
        return Outcome(
            step=step,
            finished=ended,
            metrics=self.metrics,
            best=None if best is None else Best(step=best["step"], metrics=best["metrics"]),
            speed=self._speed(),
            stopped=stopping or self.stop.agreed(0),
        )

    def _is_new(self, batch: Mapping[str, Any]) -> bool:
        """Whether the train step has yet to be compiled for batches of these shapes."""
        shapes = tuple(array.shape for array in batch.values())
        known = shapes in self.compiled
        self.compiled.add(shapes)
        return not known

    def _speed(self) -> dict[str, float]:
        figures = {"model/parameters": float(self._parameters())}
        steps, seconds = self.logger.timed
        if steps and seconds:
            rate = steps * self.experiment.loader.batch_size / seconds
            figures |= {"train/rows_per_second": rate, "train/seconds_per_epoch": self.rows / rate}
        return figures

    def _parameters(self) -> int:
        return sum(a.size for a in self.program.abstract_state["params"].values())

    def _headline(self) -> str:
        parameters = self._parameters()
        model = type(self.experiment.model).__name__
        devices = f"{self.mesh.size} {jax.devices()[0].platform} device{'s' if self.mesh.size > 1 else ''}"
        return f"{model}: {parameters:,} parameters on {devices}, {self.experiment.steps} steps into {self.folder.path}"

    def _evaluate(self, step: int) -> dict[str, float]:
        """Figures of the evaluators whose turn it is; none where this step was measured before a resumption."""
        last = step == self.experiment.steps
        epoch = self.rows / self.experiment.loader.batch_size
        due = {n: e for n, e in self.experiment.evals.items() if last or (step and e.due(step, epoch=epoch))}
        if not due or self.clock.get("evaluated") == step:
            return {}
        self.logger.flush()  # a loss that is not finite is named before its scores are measured
        found = self._measure(due, self.state, step=step)
        self.metrics |= found
        self.clock["evaluated"] = step
        if self.judge.take(step, found, last=last):
            self._lower_rate()
        return found

    def _measure(self, due: Mapping[str, Evaluator], state: State, *, step: int | None = None) -> dict[str, float]:
        """What these evaluators find of the weights of `state`; logged where a step is given."""
        predict = make_predict(self.program, self.program.weights(state))
        found: dict[str, float] = {}
        for name, evaluator in due.items():
            evaluation = evaluator.run(predict, progress=self.logger.evaluating(name))
            save_curves(self.folder.path, name=name, curves=evaluation.curves)
            evaluation = evaluation.under(name)
            if step is not None:
                self.logger.evaluation(step, evaluation.values, reasons=evaluation.reasons)
            found |= evaluation.values
        return found

    def _lower_rate(self) -> None:
        plateau, lr, before = self.experiment.plateau, self.experiment.optimizer.lr, float(self.state["lr_scale"])
        assert plateau is not None
        scale = plateau.lowered(before, lr=lr)
        if scale < before:
            self.state = self.program.with_lr_scale(self.state, scale)
            self.say(f"{plateau.metric} is no better: learning rate {lr * scale:g}")

    def _conclude(self, step: int) -> None:
        """What a finished run adds to its log: its speed, and the best evaluation with the figures still wanting.

        Evaluators that were not due at the best step, such as those of the end alone, run on its weights.
        """
        if self.clock.get("concluded") == step:
            return
        self.logger.flush()
        figures, best = self._speed(), self.judge.best
        if best is not None:
            known = {name.rsplit("/", n)[0] for name in best["metrics"] for n in range(1, name.count("/") + 1)}
            due = {name: e for name, e in self.experiment.evals.items() if name not in known}
            if due:
                state = self.state
                if best["step"] != step:
                    state = self.checkpoints.part(self.program.weights_target(), step=best["step"])
                best["metrics"] |= self._measure(due, state)
            figures |= {f"best/{name}": value for name, value in {"step": best["step"], **best["metrics"]}.items()}
        self.logger.figures(step, figures)
        self.clock["concluded"] = step

    def _save(self, step: int, *, found: Mapping[str, float], last: bool) -> None:
        self.logger.flush()  # raises on a loss that is not finite, before it can be saved
        self.checkpoints.save(
            step,
            state=self.state,
            iterator=self.batches.get_state(),
            clock={**self.clock, "metrics": self.metrics, "timed": self.logger.timed},
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
    """Vocabularies and tokenizers, which serving encodes by, and the rows that reading set aside."""
    vocabularies, rejects = getattr(source, "vocabularies", None), getattr(source, "rejects", None)
    if vocabularies is not None:
        vocabularies.read_tokenizers(source.features)
        vocabularies.save(folder / "vocabularies")
    if rejects is not None and rejects.count:
        rejects.write(folder / "rejects.jsonl")
