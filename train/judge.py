"""What a run concludes from its evaluations: which is the best, when the learning rate falls, when to stop.

All of it is kept in the clock, which checkpoints hold, so that a resumed run judges as an undisturbed one.
"""

import math
from collections.abc import Mapping
from typing import Any

from data.errors import UserError
from train.experiment import EarlyStop, Experiment, Plateau


class Judge:
    def __init__(self, experiment: Experiment, *, clock: dict[str, Any]):
        self.experiment, self.clock, self.ranking = experiment, clock, experiment.checkpointing()

    def take(self, step: int, found: Mapping[str, float], *, last: bool) -> bool:
        """Notes the figures of an evaluation. True where the learning rate is to fall."""
        self._rank(step, found)
        self._compare("early_stop", self.experiment.early_stop, found, last=last)
        return self._compare("plateau", self.experiment.plateau, found, last=last)

    def stops(self) -> bool:
        stop = self.experiment.early_stop
        return stop is not None and self.clock.get("early_stop", {}).get("worse", 0) >= stop.patience

    @property
    def best(self) -> dict[str, Any] | None:
        """Step and metrics of the best evaluation so far, where the experiment names a metric to go by."""
        return self.clock.get("best")

    def _compare(self, name: str, watch: EarlyStop | Plateau | None, found: Mapping[str, float], *, last: bool) -> bool:
        """True where what `watch` looks at was measured and is no better than its best."""
        if watch is None:
            return False
        if watch.metric not in found:
            if last or watch.metric.split("/")[0] in {n.split("/")[0] for n in found}:
                raise UserError(f"{name}.metric is {watch.metric!r}, but there is {', '.join(sorted(found))}")
            return False
        value, before = found[watch.metric], self.clock.get(name, {"best": None, "worse": 0})
        better = is_better(value, before["best"], mode=watch.mode, by=watch.min_delta)
        best, worse = (value, 0) if better else (before["best"], before["worse"] + 1)
        self.clock[name] = {"best": best, "worse": worse}
        return not better

    def _rank(self, step: int, found: Mapping[str, float]) -> None:
        metric, mode = self.ranking.best, self.ranking.mode
        if metric is None or math.isnan(found.get(metric, math.nan)):
            return
        # The later of equals, as checkpoints are ranked.
        if self.best is None or not is_better(self.best["metrics"][metric], found[metric], mode=mode):
            self.clock["best"] = {"step": step, "metrics": dict(found)}


def is_better(value: float, than: float | None, *, mode: str, by: float = 0.0) -> bool:
    """A number is better than none, and what is not a number never is."""
    if math.isnan(value):
        return False
    if than is None or math.isnan(than):
        return True
    return (value - than if mode == "max" else than - value) > by
