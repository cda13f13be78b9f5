"""MQSA-TED on Amazon 2014 Beauty (5-core), by the authors' settings but for the passes, of which they take 200.

ADLOOM_DATA=... python -m train configs/mqsa_ted_beauty.py --workdir runs/mqsa_ted_beauty
ADLOOM_DATA=... python -m train configs/mqsa_ted_beauty.py --workdir runs/mqsa_beauty task.distil=0

Rows and ranking as in configs/sasrec_beauty.py.
"""

import chz

from configs import sasrec_beauty
from data.transforms.history import NextTargets
from data.transforms.transitions import Transitions
from modules.sequential.mqsa_ted import MQSATED
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.transition_aware import TransitionAware


def get_config() -> Experiment:
    base = sasrec_beauty.get_config()
    return chz.replace(
        base,
        model=MQSATED(dropout=0.5),
        task=TransitionAware(chunk=10),
        loader=chz.replace(
            base.loader, transforms=(NextTargets(target="target"), Transitions(target="target", count=1))
        ),
        optimizer=Optimizer(lr=1e-3, l2=((r".", 1e-4),)),
    )
