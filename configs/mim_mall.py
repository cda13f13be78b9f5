"""MIM on the mall in its three stages, and what content adds to ids on all items and on those that arrived later.

    python -m train configs/mim_mall.py --workdir runs/mim

Stage 1 trains encoders on the listings alone; stage 2 (C-SFT) goes on with searches by photo and what was clicked for
them; their vectors are the fields and histories of stage 3: DIN by ids, DIN with the vectors, MIM (CiUBM) with
those of stage 1 and of stage 2, the latter two also with id dropout. Ids are those of the training days, so a new item
is unknown. stages.csft.experiment.model.bank=0 and stages.csft.experiment.source.hard=False leave out the negatives of
time and of space.
Figures: README, table of systems.
"""

import chz

from configs.common import HISTORY, click_experiment
from data.mall.co_clicks import MallCoClicks
from data.mall.config import Mall
from data.mall.searches import MallCatalogue
from data.mall.sources import MallNewcomers, MallPairs, MallProducts, Split
from data.pipeline import Loader
from data.transforms.base import Transform
from data.transforms.id_dropout import IdDropout
from data.transforms.two_views import TwoViews
from modules.base import ModelConfig
from modules.behavior.din import DIN
from modules.behavior.mim import MIM
from modules.content.mim import MIMEncoder
from serve.stages import Embed
from train.experiment import Experiment
from train.init_from import InitFrom
from train.metrics.ranking import MedianRank, Recall
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.retrieve_named import RetrieveNamed
from train.tasks.levels import Level, Levels

DROPOUT = IdDropout(rates={"item": 0.1, "history": 0.1})
OPTIMIZER = Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01)


def found_by_photo(finds: str) -> RetrieveNamed:
    """From the photo of a search to what was clicked for it, in the test days, among all other listings."""
    mall = Mall()
    return RetrieveNamed(
        source=MallCoClicks(mall=mall, split="test", asked="search", most=1000),
        corpus=MallCatalogue(mall=mall, split="all", parts=("image", "title")),
        target="sought",
        key="item",
        history="hidden",
        finds=finds,
        metrics=(Recall(ks=(10, 100)), MedianRank()),
        batch_size=256,
    )


def pretraining() -> Experiment:
    mall = Mall()
    titles = RetrieveNamed(
        source=MallPairs(mall=mall, split="test"),
        target="spu",
        key="spu",
        asks="text",
        finds="image",
        metrics=(Recall(ks=(1, 10)), MedianRank()),
    )
    return Experiment(
        model=MIMEncoder(masked=0.15),
        task=Levels(levels={"views": Level(query="query", item="image"), "title": Level(query="text", item="image")}),
        source=MallPairs(mall=mall),
        loader=Loader(batch_size=256, transforms=(TwoViews(),)),
        optimizer=OPTIMIZER,
        evals={"title": titles, "clicked": found_by_photo("image")},
        steps=300,
    )


def csft() -> Experiment:
    return Experiment(
        model=MIMEncoder(bank=1024, bank_after=75),
        task=Levels(levels={name: Level(query="query", item=name) for name in ("image", "text", "fused")}),
        source=MallCoClicks(mall=Mall(), asked="search", hard=True),
        loader=Loader(batch_size=256),
        optimizer=chz.replace(OPTIMIZER, lr=1e-3),
        evals={"clicked": found_by_photo("image"), "clicked_fused": found_by_photo("fused")},
        init_from=InitFrom(workdir="@pretraining", step="latest"),
        steps=150,
    )


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
        "mim_of_stage_1": tower(MIM(), content="@items_of_stage_1/vectors.npz"),
        "mim": tower(MIM()),
        "ids_and_vectors_dropout": tower(DIN(), DROPOUT),
        "mim_dropout": tower(MIM(), DROPOUT),
    }
    products = MallProducts(mall=Mall())
    return Pipeline(
        stages={
            "pretraining": Train(experiment=pretraining()),
            "csft": Train(experiment=csft()),
            "items_of_stage_1": Embed(of="@pretraining", source=products, vectors=("image", "text")),
            "items": Embed(of="@csft", source=products, vectors=("fused",)),
            **rows,
            "gain": Compare(
                title="What content adds to ids, C-SFT to content, and id dropout to both",
                rows={name.replace("_", " "): f"@{name}" for name in rows},
                metrics=("test/auc", "test/cold/auc", "test/cold/logloss"),
            ),
        }
    )
