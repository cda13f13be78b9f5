"""Composed retrieval without triplets: pictures as made-up words of an image-text model, beside what triplets teach.

python -m train configs/composed_inversion_mall.py --workdir runs/composed_inversion

"encoder" sees pictures and titles of the training products. "inversion" goes on from it and learns words for pictures
alone: no change of any is shown. "triplets" is `composed_mall`, which learns from changes. Figures: README, table of
systems.
"""

import chz

from configs import composed_mall, image_text_mall
from data.mall.views.title import LENGTH
from modules.content.composed import Composed
from train.experiment import Experiment
from train.init_from import InitFrom
from train.pipeline import Compare, Pipeline, Train
from train.tasks.contrastive import Contrastive


def get_config() -> Pipeline:
    plain = composed_mall.get_config()
    return Pipeline(
        stages={
            "encoder": Train(experiment=image_text_mall.plain()),
            "inversion": Train(experiment=inversion(plain)),
            "triplets": Train(experiment=plain),
            "gain": Compare(
                title="Pictures changed by words",
                rows={"triplets": "@triplets", "inversion": "@inversion"},
                metrics=("test/recall@1", "test/recall@10"),
            ),
        }
    )


def inversion(plain: Experiment) -> Experiment:
    return chz.replace(
        plain,
        model=Composed(fusion="inversion", length=LENGTH),
        task=Contrastive(label="look"),
        optimizer=chz.replace(plain.optimizer, lr_scale=(("^fusion/word/", 1.0), (".", 0.0))),
        init_from=InitFrom(workdir="@encoder"),
    )
