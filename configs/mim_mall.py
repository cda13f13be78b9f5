"""MIM on the mall's clicks: what pretrained vectors add to ids, on all items and on those that arrived later.

    python -m train configs/mim_mall.py --workdir runs/mim

image-text encoder (stands in for stages 1 and 2) -> item vectors -> DIN by ids, DIN with the vectors as further fields
and histories, MIM; the last two also with id dropout. Ids are those of the training days, so a new item is unknown.
Figures: README, table of systems.
"""

import chz

from configs import image_text_mall
from configs.common import HISTORY, click_experiment
from data.mall.config import Mall
from data.mall.sources import MallNewcomers, MallProducts, Split
from data.transforms.base import Transform
from data.transforms.id_dropout import IdDropout
from modules.base import ModelConfig
from modules.behavior.din import DIN
from modules.behavior.mim import MIM
from serve.stages import Embed
from train.experiment import Experiment
from train.pipeline import Compare, Pipeline, Train

DROPOUT = IdDropout(rates={"item": 0.1, "history": 0.1})


def get_config() -> Pipeline:
    def tower(model: ModelConfig, *transforms: Transform, content: str | None = "@items/vectors.npz") -> Train:
        def source(split: Split) -> MallNewcomers:
            return MallNewcomers(
                mall=Mall(), split=split, history=HISTORY, content=content, content_history=content is not None
            )

        base: Experiment = click_experiment(model)
        return Train(
            experiment=chz.replace(
                base,
                source=source("train"),
                loader=chz.replace(base.loader, transforms=transforms),
                evals={"test": chz.replace(base.evals["valid"], source=source("test"))},
            )
        )

    rows = {
        "ids": tower(DIN(), content=None),
        "ids_and_vectors": tower(DIN()),
        "mim": tower(MIM()),
        "ids_and_vectors_dropout": tower(DIN(), DROPOUT),
        "mim_dropout": tower(MIM(), DROPOUT),
    }
    return Pipeline(
        stages={
            "encoder": Train(experiment=image_text_mall.get_config()),
            "items": Embed(of="@encoder", source=MallProducts(mall=Mall()), vectors=("item", "query")),
            **rows,
            "gain": Compare(
                title="What content adds to ids, and what id dropout adds to content",
                rows={name.replace("_", " "): f"@{name}" for name in rows},
                metrics=("test/auc", "test/cold/auc", "test/cold/logloss"),
            ),
        }
    )
