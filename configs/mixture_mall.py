"""A mixture on the small mall: SASRec of configs/sasrec_mall.py, transition counts and a linear next-item model.

python -m train configs/mixture_mall.py --workdir runs/mixture_mall
python -m serve recommend runs/mixture_mall/mixture --k 20 --output top20.txt

The mixture's weights are fitted on the users' validation targets and judged on their test targets, as is SASRec alone;
the floors of the same rows stand beside both.
"""

import chz

from configs import sasrec_mall
from data.mall.sources import MallSequences
from data.pipeline import Loader
from modules.sequential.mixture import Mixture, Relation
from train.experiment import Experiment
from train.floors import RankFloors
from train.init_from import InitFrom
from train.item_knowledge import RelatedItems
from train.optim import Optimizer
from train.pipeline import Pipeline, Train
from train.pretrained import Several
from train.tasks.rank_next import RankNext


def get_config() -> Pipeline:
    encoder = sasrec_mall.get_config()
    train, test = encoder.source, encoder.evals["test"]
    assert isinstance(train, MallSequences)
    floors = RankFloors(source=test.source, train=train, history="history", metrics=test.metrics)
    mixture = Experiment(
        model=Mixture(
            models=(encoder.model,),
            relations={"transitions": Relation(listed=128), "linear": Relation(listed=128, scale=300.0)},
        ),
        task=RankNext(),
        source=chz.replace(train, split="valid"),
        loader=Loader(batch_size=256),
        optimizer=Optimizer(lr=0.1, lr_schedule="cosine", lr_scale=((r"^models/", 0.0),)),
        evals={"test": test, "floor": floors},
        init_from=Several(
            of=(
                InitFrom(workdir="@encoder", rename=((r"^(stats/)?", r"\1models/0/"),)),
                RelatedItems(source=train),
            )
        ),
        steps=100,
    )
    return Pipeline(stages={"encoder": Train(experiment=encoder), "mixture": Train(experiment=mixture)})
