"""The chosen setting over several seeds: what a table may claim of a model."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chz

from train.experiment import Experiment
from train.pipeline import Interrupted, Results, Say, Stage
from train.protocol.space import overridden, words
from train.workdir import write_json

RESULTS = "results.json"


@chz.chz
class Repeat(Stage):
    """Trains an experiment once a seed, each in a workdir of its own, and writes mean and spread to `results.json`.

    A seed that is done is on disk and is not trained again.
    """

    experiment: Experiment = chz.field(doc="the published setting")
    chosen: str | None = chz.field(default=None, doc="what a Search found, such as @search_dnn/chosen.json")
    seeds: tuple[int, ...] = chz.field(default=(0, 1, 2), doc="of the start and of the order of rows")
    metric: str = chz.field(default="valid/auc", doc="what the runs are about")
    split: str | None = chz.field(default=None, doc="stage that has checked the rows, such as @split")

    @chz.validate
    def _metric_is_measured(self):
        if self.metric.split("/")[0] not in self.experiment.evals:
            raise ValueError(f"metric {self.metric!r} is of no evaluator: {', '.join(self.experiment.evals)}")
        if not self.seeds:
            raise ValueError("a repetition needs seeds")

    def run(self, *, out: Path, say: Say) -> Results:
        found: dict[str, Any] = {"overrides": {}, "trials": 0}
        if self.chosen:
            found = json.loads(Path(self.chosen).read_text())
        base = overridden(self.experiment, found["overrides"])
        say(f"{type(base.model).__name__}, {words(found['overrides'])}, {found['trials']} trials")
        runs = []
        for position, seed in enumerate(self.seeds, start=1):
            file = out / f"seed-{seed}.json"
            if not file.is_file():
                record = self._train(base, seed=seed, folder=out / f"seed-{seed}", say=say)
                write_json(file, value=record)
            runs.append(json.loads(file.read_text()))
            say(f"seed {position}/{len(self.seeds)}: {self._line(runs[-1])}")
        results: dict[str, Any] = {
            "model": type(base.model).__name__,
            "overrides": found["overrides"],
            "trials": found["trials"],
            "metric": self.metric,
            **summary(runs),
            "runs": runs,
        }
        write_json(out / RESULTS, value=results)
        mean, sd = results["mean"], results["sd"]
        say(f"{self.metric} {mean[self.metric]:.5f} ± {sd[self.metric]:.5f} over {len(runs)} seeds")
        return {**mean, f"{self.metric}/sd": sd[self.metric]}

    def _train(self, base: Experiment, *, seed: int, folder: Path, say: Say) -> dict[str, Any]:
        from train import loop  # heavy, and a pipeline is read without it

        experiment = chz.replace(base, seed=seed, loader=chz.replace(base.loader, seed=seed))
        outcome = loop.train(experiment, workdir=folder, say=lambda line: say(f"  {line}"))
        if outcome.stopped:
            raise Interrupted(f"stopped at step {outcome.step} of {experiment.steps}, seed {seed}")
        return {
            "seed": seed,
            **outcome.results(),
            "train/epochs": outcome.step * experiment.loader.batch_size / len(experiment.source.make()),
        }

    def _line(self, run: dict) -> str:
        return (
            f"{self.metric} {run[self.metric]:.5f}, {run['train/epochs']:.1f} epochs of "
            f"{run['train/seconds_per_epoch']:.1f} s"
        )


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of every figure that all runs have."""
    names = [name for name in runs[0] if name != "seed" and all(name in run for run in runs)]
    return {
        "mean": {name: statistics.fmean(run[name] for run in runs) for name in names},
        "sd": {name: statistics.stdev(run[name] for run in runs) if len(runs) > 1 else 0.0 for name in names},
    }
