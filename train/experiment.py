"""The typed tree of one training run: which model learns which task from which data, and how."""

import json
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
from train.init_from import InitFrom
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
class Experiment:
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
    init_from: InitFrom | None = chz.field(default=None, doc="weights of another workdir to start from")


def load_experiment(workdir: Path) -> Experiment:
    """The experiment that a workdir was trained with."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} is not a workdir of a training run: it has no config.json")
    experiment = load(json.loads(path.read_text()))
    if not isinstance(experiment, Experiment):
        raise UserError(f"{workdir} holds a {type(experiment).__name__}, not a training run; name one of its stages")
    return experiment
