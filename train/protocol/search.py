"""One model's hyper-parameters, searched within a stated budget by Optuna's tree-structured Parzen estimator."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import chz

from data.errors import UserError
from train.experiment import Experiment
from train.pipeline import Interrupted, Results, Say, Stage
from train.protocol.space import Overrides, Space, overridden, words
from train.workdir import CHECKPOINTS, write_json

CHOSEN, TRIALS = "chosen.json", "trials"


@chz.chz
class Search(Stage):
    """Trains the published setting and `trials - 1` others, and writes the best one's overrides to `chosen.json`.

    A trial depends on those before it and on the seed alone, and each is on disk when it ends: a search that was
    stopped goes on as if it had not been.
    """

    experiment: Experiment = chz.field(doc="the published setting, which is the first trial")
    space: Space = chz.field(default_factory=dict, doc="dotted field of the experiment to its Choices or Range")
    trials: int = chz.field(default=0, doc="trainings in all; 0 or 1 takes the published setting untried")
    metric: str = chz.field(default="valid/auc", doc="chosen by; each trial counts at its best evaluation")
    mode: Literal["max", "min"] = "max"
    seed: int = chz.field(default=0, doc="of the sampler; trials train with the experiment's own seeds")
    split: str | None = chz.field(default=None, doc="stage that has checked the rows, such as @split")

    @chz.validate
    def _budget_and_space(self):
        if self.trials > 1 and not self.space:
            raise ValueError(f"{self.trials} trials, but no space to search")

    def run(self, *, out: Path, say: Say) -> Results:
        records: list[dict] = []
        if self.trials > 1:
            (out / TRIALS).mkdir(exist_ok=True)
            for number in range(self.trials):
                file = out / TRIALS / f"{number}.json"
                if file.is_file():
                    record = json.loads(file.read_text())
                else:
                    record = self._trial(number, records, folder=out / TRIALS / str(number), say=say)
                    write_json(file, value=record)
                    shutil.rmtree(out / TRIALS / str(number) / CHECKPOINTS, ignore_errors=True)
                records.append(record)
                setting = words(record["overrides"])
                say(f"trial {number + 1}/{self.trials}: {self.metric} {record['value']:.5f}  {setting}")
        best = _best(records, self.mode) if records else {"overrides": {}, "value": None}
        chosen = {"overrides": best["overrides"], "value": best["value"], "trials": len(records), "metric": self.metric}
        write_json(out / CHOSEN, value=chosen)
        say(f"chosen: {words(best['overrides'])}")
        return {"trials": len(records), "chosen": words(best["overrides"]), **_figure(self.metric, best["value"])}

    def _trial(self, number: int, before: list[dict], *, folder: Path, say: Say) -> dict:
        from train import loop  # heavy, and a pipeline is read without it

        drawn, overrides = self._draw(number, before)
        for record in before:
            if record["overrides"] == json.loads(json.dumps(overrides)):
                return {**record, "number": number, "drawn": drawn, "same_as": record["number"]}
        experiment = overridden(self.experiment, overrides)
        outcome = loop.train(experiment, workdir=folder, say=lambda line: say(f"  {line}"))
        if outcome.stopped:
            raise Interrupted(f"stopped in trial {number + 1} of {self.trials}")
        found = outcome.results()
        if self.metric not in found:
            raise UserError(f"a trial has no figure {self.metric!r}; it has {', '.join(sorted(found))}")
        return {"number": number, "overrides": overrides, "drawn": drawn, "value": found[self.metric], "figures": found}

    def _draw(self, number: int, before: list[dict]) -> tuple[dict[str, Any] | None, Overrides]:
        """What the sampler gives after these trials; the published setting comes first."""
        if number == 0:
            return None, {}
        try:
            import optuna
        except ImportError as error:
            raise UserError("a search needs Optuna: pip install 'adloom[tune]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = {name: dimension.distribution() for name, dimension in self.space.items()}
        # Its own seed for each trial: the state of the sampler is then a matter of the trials before alone.
        sampler = optuna.samplers.TPESampler(
            seed=self.seed * 1_000_003 + number, n_startup_trials=5, multivariate=False
        )
        study = optuna.create_study(direction="maximize" if self.mode == "max" else "minimize", sampler=sampler)
        for record in before:
            if record["drawn"] is not None:
                study.add_trial(
                    optuna.trial.create_trial(params=record["drawn"], distributions=space, value=record["value"])
                )
        drawn = study.ask(space).params
        return drawn, {name: self.space[name].value(drawn[name]) for name in self.space}


def _best(records: list[dict], mode: str) -> dict:
    """The earlier of equals."""
    choose = max if mode == "max" else min
    return choose(records, key=lambda r: r["value"])


def _figure(metric: str, value: float | None) -> Results:
    return {} if value is None else {metric: value}
