"""What a content encoder buys a click tower: encoder -> vectors of the mall's listings -> DIN with them and without.

Ids are those of the training days, and both towers learn with id dropout, so that they differ in the vectors alone: an
unknown id says something to both. Measured on the test period: all rows, "cold" ones (the listing arrived after
training) and the "tail" (known, with fewer than TAIL clicks in the training days; one row in eight).
"""

import dataclasses
from collections.abc import Mapping

import chz

from configs.common import HISTORY, click_experiment
from data.mall.config import Mall
from data.mall.sources import MallProducts, Split
from data.mall.tail import MallTail
from data.sources import SourceConfig
from data.transforms.id_dropout import IdDropout
from modules.behavior.din import DIN
from modules.layers.embedding import Embedding
from serve.stages import Embed
from train.evaluators import Slice
from train.experiment import Experiment
from train.init_from import InitFrom
from train.metrics.auc import AUC
from train.metrics.point import LogLoss
from train.pipeline import Compare, Pipeline, Stage, Train

TAIL = 10
DROPOUT = IdDropout(rates={"item": 0.1, "history": 0.1})


@dataclasses.dataclass(frozen=True)
class Encoder:
    """`vectors` are the outputs that go together into an item's vector; `items` has what they are read from, by default
    the pictures and titles of all listings. `start` is trained before it and gives the weights to go on from."""

    experiment: Experiment
    vectors: tuple[str, ...] = ("item",)
    items: SourceConfig | None = None
    start: Experiment | None = None

    def stages(self, name: str, *, then: str) -> dict[str, Stage]:
        """`name` trains the encoder, `then` makes the vectors."""
        experiment = self.experiment
        made: dict[str, Stage] = {}
        if self.start is not None:
            made[f"{name}_start"] = Train(experiment=self.start)
            experiment = chz.replace(experiment, init_from=InitFrom(workdir=f"@{name}_start", strict=True))
        return {**made, name: Train(experiment=experiment), then: self.embed(of=f"@{name}")}

    def embed(self, *, of: str) -> Embed:
        return Embed(of=of, source=self.items or MallProducts(mall=Mall()), name="vectors", vectors=self.vectors)


def what_it_buys(encoder: Encoder) -> Pipeline:
    rows = {"ids": click_stage(content=None), "vectors": click_stage(content="@items/vectors")}
    stages = {**encoder.stages("encoder", then="items"), **rows}
    title = "What the encoder's vectors buy DIN: all rows, listings that arrived later, and the tail"
    return Pipeline(stages={**stages, "gain": gain(title, rows)})


def what_they_buy(encoders: Mapping[str, Encoder]) -> Pipeline:
    """Each encoder's vectors in a tower of their own; what an encoder's own config evaluates is not done again."""
    made: dict[str, Stage] = {}
    rows = {"ids": click_stage(content=None)}
    for name, encoder in encoders.items():
        alone = dataclasses.replace(encoder, experiment=chz.replace(encoder.experiment, evals={}))
        made |= alone.stages(f"{name}_encoder", then=f"{name}_items")
        rows[name] = click_stage(content=f"@{name}_items/vectors")
    title = "What content encoders' vectors buy DIN: all rows, listings that arrived later, and the tail"
    return Pipeline(stages={**made, **rows, "gain": gain(title, rows)})


def gain(title: str, rows: Mapping[str, Stage]) -> Compare:
    return Compare(
        title=title,
        rows={name: f"@{name}" for name in rows},
        metrics=("test/auc", "test/cold/auc", "test/tail/auc", "test/cold/logloss"),
    )


def click_stage(*, content: str | None) -> Train:
    """DIN; with vectors they are fields of the item and of each past item, in one attention with their ids."""

    def source(split: Split) -> MallTail:
        return MallTail(mall=Mall(), split=split, history=HISTORY, content=content, content_history=content is not None)

    base = click_experiment(DIN(product=True, embedding=Embedding(widths={"content": 32} if content else {})))
    measured = chz.replace(
        base.evals["valid"],
        source=source("test"),
        metrics=(AUC(), LogLoss()),
        slices={
            "cold": Slice(feature="is_cold", equals=1),
            "tail": Slice(feature="train_clicks", at_least=0, below=TAIL),
        },
    )
    loader = chz.replace(base.loader, transforms=(DROPOUT,))
    return Train(experiment=chz.replace(base, source=source("train"), loader=loader, evals={"test": measured}))
