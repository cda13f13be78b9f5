"""A source and an experiment small enough that a train step compiles in a second."""

from typing import Literal

import chz
import numpy as np

from data.features import Categorical, Features, Group, Label, Numeric
from data.pipeline import Loader
from data.sources import InMemory, SourceConfig
from modules.ctr.dnn import DNN
from modules.layers.mlp import MLP
from train.checkpoint import Checkpointing
from train.evaluators import Evaluate
from train.experiment import Experiment
from train.log import Logging
from train.metrics.auc import AUC
from train.optim import Optimizer
from train.tasks.pointwise import Pointwise

ROWS = 512


@chz.chz
class Tiny(SourceConfig):
    """Clicks that depend on the user's and the item's id."""

    split: Literal["train", "valid"] = "train"
    broken_at: int | None = chz.field(default=None, doc="row whose price is infinite")

    def make(self) -> InMemory:
        rng = np.random.default_rng({"train": 0, "valid": 1}[self.split])
        user, item = rng.integers(2, 40, ROWS), rng.integers(2, 24, ROWS)
        effects = np.random.default_rng(7)
        truth = effects.normal(size=40)[user] + effects.normal(size=24)[item]
        price = rng.normal(size=ROWS).astype(np.float32)
        if self.broken_at is not None:
            price[self.broken_at] = np.inf
        features = Features(
            all=(
                Categorical(name="user", rows=40, role="user"),
                Categorical(name="item", rows=24, role="item"),
                Numeric(name="price", role="item"),
                Label(name="click"),
                Group(name="group"),
            )
        )
        columns = {"user": user, "item": item, "price": price, "click": truth > 0, "group": user}
        return InMemory(columns, features=features)


def tiny(
    *,
    optimizer: Optimizer = Optimizer(lr=1e-2),
    steps: int = 12,
    batch_size: int = 64,
    every: int | None = 4,
    model: DNN = DNN(dim=4, mlp=MLP(widths=(8,))),
    source: Tiny = Tiny(),
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Experiment:
    return Experiment(
        model=model,
        task=Pointwise(),
        source=source,
        loader=Loader(batch_size=batch_size, prefetch=0),
        optimizer=optimizer,
        evals={
            "valid": Evaluate(source=Tiny(split="valid"), metrics=(AUC(label="click"),), batch_size=128, every=every)
        },
        steps=steps,
        precision=precision,
        checkpoint=Checkpointing(every=2),
        log=Logging(every=1, progress="none"),
    )
