"""The typed tree of one training run: which model learns which task from which data, and how."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import chz

from data.errors import UserError
from data.pipeline import Loader
from data.sources import SourceConfig
from modules.base import ModelConfig
from train.checkpoint import Checkpointing
from train.evaluators import Evaluator
from train.held_out import HeldOut
from train.init_from import Start
from train.log import Logging
from train.optim import Optimizer
from train.sharding import Mesh
from train.snapshot import load
from train.tasks.base import Task


@chz.chz
class EarlyStop:
    """Ends the run when a metric has not improved for a while."""

    metric: str = chz.field(doc="as logged, such as valid/auc")
    mode: Literal["max", "min"] = "max"
    patience: int = chz.field(default=2, doc="evaluations without a better value")
    min_delta: float = 1e-6


@chz.chz
class Plateau:
    """Lowers the learning rate each time that an evaluation finds a metric no better than its best."""

    metric: str = chz.field(doc="as logged, such as valid/auc")
    mode: Literal["max", "min"] = "max"
    factor: float = chz.field(default=0.1, doc="of the learning rate at each stall")
    min_lr: float = chz.field(default=1e-6, doc="what optimizer.lr is not lowered below")
    min_delta: float = 1e-6

    @chz.validate
    def _check(self) -> None:
        if not 0 < self.factor <= 1:
            raise ValueError(f"plateau.factor is {self.factor}; give a number between 0 and 1")

    def lowered(self, scale: float, *, lr: float) -> float:
        """The next factor of the learning rate `lr`, from the one before."""
        return max(self.factor * scale, min(scale, self.min_lr / lr)) if lr else scale


def steps_of(*, epochs: float, rows: int, batch_size: int) -> int:
    """`Experiment.steps` of so many passes over `rows`; beside it stand evaluators with every_epochs=1."""
    return math.ceil(epochs * rows / batch_size)


@chz.chz
class Experiment:
    """One training run.

    The best evaluation is that of `checkpoint.best`, else of `early_stop.metric`, else of `plateau.metric`: its
    checkpoint is kept and served, and its figures are what the run reports and what comparisons read. Where none of
    the three is set, they are those of the last evaluation.
    """

    model: ModelConfig = chz.field(doc="what is trained")
    task: Task = chz.field(doc="what its outputs mean")
    source: SourceConfig = chz.field(doc="training rows")
    loader: Loader = chz.field(default_factory=Loader, doc="how rows become batches")
    optimizer: Optimizer = chz.field(default_factory=Optimizer)
    mesh: Mesh = chz.field(default_factory=Mesh, doc="devices and placement")
    evals: Mapping[str, Evaluator] = chz.field(default_factory=dict, doc="evaluators by the name they log under")
    steps: int = chz.field(default=1000, doc="updates in all")
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = chz.field(
        default="float32", doc="of forward and backward pass; parameters stay float32"
    )
    checkpoint: Checkpointing = chz.field(default_factory=Checkpointing)
    log: Logging = chz.field(default_factory=Logging)
    early_stop: EarlyStop | None = None
    plateau: Plateau | None = chz.field(default=None, doc="lowers the learning rate when a metric stalls")
    held_out: HeldOut | None = chz.field(default=None, doc="parameters that learn from rows of their own")
    init_from: Start | None = chz.field(
        default=None,
        doc="weights to start from: InitFrom, another workdir's; train.pretrained:Pretrained, published ones",
    )

    def checkpointing(self) -> Checkpointing:
        """`checkpoint`, ranked by what the run watches where it names no metric itself."""
        watched = self.early_stop or self.plateau
        if self.checkpoint.best is not None or watched is None:
            return self.checkpoint
        return chz.replace(self.checkpoint, best=watched.metric, mode=watched.mode)


def load_experiment(workdir: Path) -> Experiment:
    """The experiment that a workdir was trained with."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} is not a workdir of a training run: it has no config.json")
    experiment = load(json.loads(path.read_text()))
    if not isinstance(experiment, Experiment):
        raise UserError(f"{workdir} holds a {type(experiment).__name__}, not a training run; name one of its stages")
    return experiment
