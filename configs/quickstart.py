"""The whole funnel on the simulated mall, and what content buys on items that nobody has clicked yet.

    python -m train

mall -> image-text encoder -> item vectors -> click tower with and without them -> index -> export -> batch scores.
Everything lands in runs/quickstart; a second call skips what is done.
Figures: README, table of systems.
"""

import chz

from configs import image_text_mall
from configs.common import click_experiment, clicks
from data.mall.config import Mall
from data.mall.sources import MallProducts
from modules.ctr.dnn import DNN
from serve.stages import Embed, Export, Index, Score
from train.experiment import Experiment
from train.pipeline import Compare, Pipeline, Train


def get_config() -> Pipeline:
    base, vectors = click_experiment(DNN()), "@items/vectors.npz"

    def tower(content: str | None) -> Experiment:
        measured = base.evals["valid"]
        evals = {
            "valid": chz.replace(measured, source=clicks("valid", content=content)),
            "test": chz.replace(measured, source=clicks("test", content=content)),
        }
        return chz.replace(base, source=clicks(content=content), evals=evals)

    return Pipeline(
        stages={
            "encoder": Train(experiment=image_text_mall.plain()),
            "items": Embed(of="@encoder", source=MallProducts(mall=Mall()), vectors=("item", "query")),
            "ids": Train(experiment=tower(None)),
            "ids_and_content": Train(experiment=tower(vectors)),
            "index": Index(of=vectors, metric="cosine"),
            "export": Export(of="@ids_and_content"),
            "scores": Score(of="@export", source=clicks("test", content=vectors)),
            "gain": Compare(
                title="What content embeddings bought on cold items (arrived after training)",
                rows={"ids": "@ids", "ids and content": "@ids_and_content"},
                metrics=("test/auc", "test/cold/auc", "test/cold/logloss"),
            ),
        }
    )
