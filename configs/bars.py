"""The trainer of the BARS benchmark (Zhu et al., SIGIR 2022), stated once for every config that compares by it.

Adam, mean binary cross-entropy plus lambda / 2 times the squared norm of whole tables at every step, gradients clipped
at norm 10, tables from N(0, 1e-4). Each pass ends in an evaluation; where it finds no better AUC the learning rate
falls to a tenth, and the second such evaluation in turn ends the run. The weights of the best evaluation count.

BARS's row of the padding id is a constant zero and its unknown id is the last row; here both are learned rows at the
front. Frappe has no missing values and six unknown users among its valid rows, so figures do not depend on it.
"""

from collections.abc import Mapping

import chz

from data.pipeline import Loader
from data.sources import SourceConfig
from data.transforms.base import Transform
from modules.base import ModelConfig
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from train.checkpoint import Checkpointing
from train.evaluators import Evaluate
from train.experiment import EarlyStop, Experiment, Plateau, steps_of
from train.log import Logging
from train.metrics.auc import AUC
from train.metrics.base import Metric
from train.metrics.point import LogLoss
from train.optim import Optimizer
from train.pipeline import Stage
from train.protocol.leaderboard import Row
from train.protocol.repeat import Repeat
from train.protocol.search import Search
from train.protocol.space import Space
from train.protocol.speed import Speed
from train.tasks.pointwise import Pointwise

TABLES = r"(^|/)table(_\w+)?$"
"""Every embedding table. BARS would count a numeric field's vector as one; its data sets here have none."""

EMBEDDING = Embedding(std=1e-4)
METRIC = "valid/auc"
SEEDS = (0, 1, 2)


def mlp(*widths: int, dropout: float) -> MLP:
    return MLP(widths=widths, norm="batch", dropout=dropout)


def bars_experiment(
    model: ModelConfig,
    *,
    train: SourceConfig,
    valid: SourceConfig,
    rows: int,
    l2: float,
    batch_size: int = 4096,
    epochs: int = 100,
    lr: float = 1e-3,
    label: str = "label",
    metrics: tuple[Metric, ...] = (),
    transforms: tuple[Transform, ...] = (),
) -> Experiment:
    """`model` trained as BARS trains; `l2` is its lambda of the tables, `rows` those of `train`."""
    return Experiment(
        model=model,
        task=Pointwise(label=label),
        source=train,
        loader=Loader(batch_size=batch_size, transforms=transforms),
        optimizer=Optimizer(lr=lr, l2=((TABLES, l2),), clip_norm=10.0),
        evals={
            "valid": Evaluate(
                source=valid,
                metrics=(AUC(label=label), LogLoss(label=label), *metrics),
                batch_size=8192,
                every_epochs=1,
                transforms=transforms,
            )
        },
        steps=steps_of(epochs=epochs, rows=rows, batch_size=batch_size),
        plateau=Plateau(metric=METRIC),
        early_stop=EarlyStop(metric=METRIC, patience=2),
        checkpoint=Checkpointing(every=None, keep_last=1),
        log=Logging(every=50),
    )


@chz.chz
class Entry:
    """A line of a table: a model in its published setting, what a search may change, and the figures beside it."""

    label: str = chz.field(doc="in the table")
    experiment: Experiment
    anchor: float | None = chz.field(default=None, doc="figure to reach, on the same files")
    paper: str = chz.field(default="", doc="figure of the literature, on its own files")
    space: Space = chz.field(default_factory=dict)
    trials: int = chz.field(default=0, doc="budget of the search; 0: the published setting, untried")


def stages(entries: Mapping[str, Entry], *, metric: str = METRIC, seeds: tuple[int, ...] = SEEDS) -> dict[str, Stage]:
    """A repetition of each entry under its name, search_<name> where it has a budget, and `speed`; after `split`."""
    out: dict[str, Stage] = {}
    for name, entry in entries.items():
        chosen = None
        if entry.trials > 1:
            chosen = f"@search_{name}/chosen.json"
            out[f"search_{name}"] = Search(
                experiment=entry.experiment, space=entry.space, trials=entry.trials, metric=metric, split="@split"
            )
        out[name] = Repeat(experiment=entry.experiment, chosen=chosen, seeds=seeds, metric=metric, split="@split")
    out["speed"] = Speed(experiments={name: entry.experiment for name, entry in entries.items()})
    return out


def rows(entries: Mapping[str, Entry]) -> dict[str, Row]:
    """The table's lines."""
    return {
        e.label: Row(of=f"@{name}", speed=f"@speed/{name}.json", anchor=e.anchor, paper=e.paper)
        for name, e in entries.items()
    }
