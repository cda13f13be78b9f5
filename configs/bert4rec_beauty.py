"""BERT4Rec on Amazon 2014 Beauty (5-core), by the authors' settings but for the rate and the steps: they take
400,000 at 1e-4.

ADLOOM_DATA=... python -m train configs/bert4rec_beauty.py --workdir runs/bert4rec_beauty

Rows and ranking as in configs/sasrec_beauty.py; the training target is one more item to hide.
"""

import chz

from configs import sasrec_beauty
from data.pipeline import Loader
from data.transforms.sequences import Cloze
from modules.sequential.bert4rec import BERT4Rec
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.next_item import NextItem


def get_config() -> Experiment:
    return chz.replace(
        sasrec_beauty.get_config(),
        model=BERT4Rec(dropout=0.5),
        task=NextItem(objective="softmax", chunk=10),
        loader=Loader(batch_size=256, transforms=(Cloze(rate=0.6, last=0.1, target="target"),)),
        optimizer=Optimizer(algorithm="adamw", lr=1e-3, warmup_steps=30, lr_schedule="linear", weight_decay=0.01),
        steps=10_000,
    )
