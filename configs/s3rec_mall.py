"""S3-Rec on the small mall: SASRec from scratch, and from an encoder that first learnt what belongs together.

python -m train configs/s3rec_mall.py --workdir runs/s3rec

"pretraining" reads the categories, brands and attributes of what people looked at; "tuned" and "scratch" are SASRec by
ids alone. Without attributes: stages.pretraining.experiment.task.aap=0 stages.pretraining.experiment.task.map=0. Full
ranking over the catalogue, the history left out.
Figures: README, table of systems.
"""

import chz

from configs import sasrec_mall
from data.mall.attributed import ATTRIBUTE_NAMES, MallAttributed
from data.mall.config import Mall
from data.pipeline import Loader
from modules.sequential.s3rec import S3Rec
from train.experiment import Experiment
from train.init_from import InitFrom
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.tasks.s3_pretraining import S3Pretraining


def get_config() -> Pipeline:
    pretraining = Experiment(
        model=S3Rec(attributes=tuple(f"history_{name}" for name in ATTRIBUTE_NAMES)),
        task=S3Pretraining(),
        source=MallAttributed(mall=Mall(size="small"), max_len=30),
        loader=Loader(batch_size=128),
        optimizer=Optimizer(lr=1e-3),
        steps=300,
    )
    return against_scratch(pretraining, scratch=sasrec_mall.get_config(), part="test")


def against_scratch(pretraining: Experiment, *, scratch: Experiment, part: str) -> Pipeline:
    """SASRec as it is, and from the pre-trained encoder."""
    rows = {
        "scratch": scratch,
        "tuned": chz.replace(scratch, init_from=InitFrom(workdir="@pretraining", step="latest")),
    }
    return Pipeline(
        stages={
            "pretraining": Train(experiment=pretraining),
            **{name: Train(experiment=experiment) for name, experiment in rows.items()},
            "gain": Compare(
                title="Next products from scratch and after pre-training",
                rows={name: f"@{name}" for name in rows},
                metrics=tuple(f"{part}/{metric}" for metric in ("hit_rate@5", "hit_rate@20", "ndcg@20")),
            ),
        }
    )
