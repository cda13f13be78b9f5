"""What LEARN's vectors of people and listings buy DIN on the mall: cold people, cold listings, the tail.

python -m train configs/learn_buys_mall.py --workdir runs/learn_buys

LEARN learns from texts and the training days. Its vectors of the listings, and of each person at each request from what
the person had done before it, are computed once and read as fields and histories: by DIN, by LEARN's online tower
around DIN, and not at all by the first row. "guests" are people who are in no training row (one in eight), of whose
past five actions are known; "cold" are listings that arrived after training. All rows learn with id dropout, as in
`what_it_buys`.
Figures: docs/people.md.
"""

import chz

from configs.common import HISTORY, click_experiment
from configs.learn_mall import learn
from configs.what_it_buys import TAIL
from data.mall.config import Mall
from data.mall.guests import MallGuests
from data.mall.readers import MallListings, MallVisits
from data.mall.sources import Split
from data.transforms.id_dropout import IdDropout
from modules.base import ModelConfig
from modules.behavior.din import DIN
from modules.behavior.learn import LEARNRanker
from modules.layers.embedding import Embedding
from serve.stages import Embed
from train.evaluators import Slice
from train.experiment import Experiment
from train.metrics.auc import AUC
from train.metrics.point import LogLoss
from train.pipeline import Compare, Pipeline, Stage, Train

DROPOUT = IdDropout(rates={"item": 0.1, "history": 0.1, "user": 0.1})
STEPS = 530
"""Just under a pass over the rows of who is no guest: early in the second one a tower is worse (docs/people.md)."""
ITEMS, PEOPLE = "@items/vectors", "@people/vectors"
METRICS = ("test/auc", "test/guests/auc", "test/cold/auc", "test/tail/auc", "test/logloss")


def get_config() -> Pipeline:
    din = DIN(product=True, embedding=Embedding(widths={"content": 32}))
    rows = {
        "ids": click_stage(DIN(product=True), items=None, people=None),
        "vectors": click_stage(din, items=ITEMS, people=PEOPLE),
        "adapted": click_stage(LEARNRanker(tower=din), items=ITEMS, people=PEOPLE),
    }
    mall = Mall()
    experiment = learn(mall)
    return vectors_buy(
        rows,
        encoder={
            "learn": Train(experiment=experiment),
            "items": Embed(of="@learn", source=MallListings(mall=mall), name="vectors"),
            "people": Embed(of="@learn", source=MallVisits(mall=mall), name="vectors", id="visit", vectors=("query",)),
        },
    )


def vectors_buy(rows: dict[str, Train], *, encoder: dict[str, Stage]) -> Pipeline:
    """The stages that make vectors, the click towers, and their table."""
    return Pipeline(
        stages={
            **encoder,
            **rows,
            "gain": Compare(
                title="What vectors of people and listings buy: all rows, people and listings unknown, and the tail",
                rows={name: f"@{name}" for name in rows},
                metrics=METRICS,
            ),
        }
    )


def click_stage(model: ModelConfig, *, items: str | None, people: str | None) -> Train:
    def source(split: Split) -> MallGuests:
        return MallGuests(
            mall=Mall(),
            split=split,
            history=HISTORY,
            content=items,
            content_history=items is not None,
            people=people,
        )

    base: Experiment = click_experiment(model, steps=STEPS)
    measured = chz.replace(
        base.evals["valid"],
        source=source("test"),
        metrics=(AUC(), LogLoss()),
        slices={
            "guests": Slice(feature="is_guest", equals=1),
            "cold": Slice(feature="is_cold", equals=1),
            "tail": Slice(feature="train_clicks", at_least=0, below=TAIL),
        },
    )
    loader = chz.replace(base.loader, transforms=(DROPOUT,))
    return Train(experiment=chz.replace(base, source=source("train"), loader=loader, evals={"test": measured}))
