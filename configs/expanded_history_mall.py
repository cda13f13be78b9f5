"""What a person watched elsewhere, as products of the shop: one of the uses of COPE's space (Bai et al., ICCV 2023).

python -m train configs/expanded_history_mall.py --workdir runs/expanded_history

Seven of ten things that people do they do in videos, which two towers of the shop do not read ("here"), or as ids with
a table of their own ("ids"). COPE puts pages and videos into one space, without a click: "across" finds the product
nearest to each video, and "expanded" has these in its histories. "whole" is told what product each video shows. "alike"
is item to item by content within a category: what `serve neighbours` gives. Figures: docs/retrieval.md.
"""

import chz

from configs import cope_mall, two_tower_mall
from data.mall.config import Mall
from data.mall.elsewhere import MallElsewhere
from data.mall.sources import MallProducts, Split
from data.mall.triples import MallTriples, MallVideos
from serve.neighbour_stages import Neighbours
from serve.stages import Embed
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.pipeline import Compare, Pipeline, Train


def get_config() -> Pipeline:
    mall = Mall(size="small")
    cope = cope_mall.get_config()
    encoder = chz.replace(
        cope,
        model=chz.replace(cope.model, classes=0),
        task=chz.replace(cope.task, classify=0.0),
        source=MallTriples(mall=mall),
        evals={},
    )
    near = "@across/neighbours.npy"
    rows = {
        "here": tower(mall),
        "ids": tower(mall, watched=True),
        "expanded": tower(mall, near=near),
        "whole": tower(mall, share=0.0),
    }
    return Pipeline(
        stages={
            "encoder": Train(experiment=encoder),
            "pages": Embed(of="@encoder", source=MallProducts(mall=mall), name="vectors", vectors=("page",)),
            "videos": Embed(of="@encoder", source=MallVideos(mall=mall), name="vectors", vectors=("video",)),
            "across": Neighbours(of="@pages/vectors", queries="@videos/vectors", count=1),
            "alike": Neighbours(
                of="@pages/vectors", count=20, source=MallProducts(mall=mall, views=()), same=("category",)
            ),
            **{name: Train(experiment=experiment) for name, experiment in rows.items()},
            "gain": Compare(
                title="Two towers by what was done in the shop; and by videos: ids, nearest products, true ones",
                rows={name: f"@{name}" for name in rows},
                metrics=("test/recall@10", "test/recall@100", "test/mrr"),
            ),
        }
    )


def tower(mall: Mall, *, share: float = 0.7, near: str | None = None, watched: bool = False) -> Experiment:
    def source(split: Split) -> MallElsewhere:
        return MallElsewhere(mall=mall, split=split, share=share, near=near, watched=watched)

    base = two_tower_mall.two_tower(mall)
    evals = {}
    for split in ("valid", "test"):
        evaluator = base.evals[split]
        assert isinstance(evaluator, Retrieve)
        evals[split] = chz.replace(evaluator, source=source(split), corpus=MallProducts(mall=mall, views=()))
    return chz.replace(base, source=source("train"), evals=evals)
