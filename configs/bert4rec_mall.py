"""BERT4Rec on the small mall: products hidden anywhere in a user's history, told from those on both sides.

python -m train configs/bert4rec_mall.py --workdir runs/bert4rec
python -m train configs/bert4rec_mall.py --workdir runs/bert4rec_plain model.projection=False
python -m train configs/bert4rec_mall.py --workdir runs/bert4rec_anywhere loader.transforms.0.last=0

Full ranking over the catalogue, the history left out. It needs several times the steps of SASRec, which learns from
every position at each.
Figures: README, table of systems.
"""

import chz

from configs import sasrec_mall
from data.pipeline import Loader
from data.transforms.sequences import Cloze
from modules.sequential.bert4rec import BERT4Rec
from train.experiment import Experiment
from train.optim import Optimizer


def get_config() -> Experiment:
    return chz.replace(
        sasrec_mall.get_config(),
        model=BERT4Rec(),
        loader=Loader(batch_size=128, transforms=(Cloze(rate=0.3, last=0.2),)),
        optimizer=Optimizer(lr=3e-3, warmup_steps=30, lr_schedule="linear"),
        steps=1000,
    )
