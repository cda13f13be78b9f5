"""ICSRec on Amazon 2014 Beauty (5-core), by the authors' settings but for the passes, of which they take up to 300.

ADLOOM_DATA=... python -m train configs/icsrec_beauty.py --workdir runs/icsrec_beauty
ADLOOM_DATA=... python -m train configs/icsrec_beauty.py --workdir runs/icsrec_beauty_control task.coarse=0 task.fine=0

Users and ranking as in configs/sasrec_beauty.py; every beginning of a history is a row.
"""

import chz

from configs import sasrec_beauty
from data.pipeline import Loader
from data.prefixes import Prefixes
from data.transforms.same_target import SameTarget
from modules.sequential.icsrec import ICSRec
from modules.sequential.sasrec import SASRec
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.intent_contrast import IntentContrast


def get_config() -> Experiment:
    base = sasrec_beauty.get_config()
    return chz.replace(
        base,
        model=ICSRec(encoder=SASRec(norm="post", heads=2, expand=4, dropout=0.5)),
        task=IntentContrast(coarse=0.3, fine=0.1),
        source=Prefixes(of=base.source),
        loader=Loader(batch_size=256, transforms=(SameTarget(),)),
        optimizer=Optimizer(lr=1e-3),
        steps=6000,
    )
