"""MQSA-TED on the small mall: queries of the newest product and of the newest three, and transitions as a teacher.

python -m train configs/mqsa_ted_mall.py --workdir runs/mqsa_ted
python -m train configs/mqsa_ted_mall.py --workdir runs/mqsa_ted_short model.alpha=1
python -m train configs/mqsa_ted_mall.py --workdir runs/mqsa_ted_untaught task.distil=0

Full ranking over the catalogue, the history left out.
Figures: README, table of systems.
"""

import chz

from configs import sasrec_mall
from data.transforms.history import NextTargets
from data.transforms.transitions import Transitions
from modules.sequential.mqsa_ted import MQSATED
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.transition_aware import TransitionAware


def get_config() -> Experiment:
    base = sasrec_mall.get_config()
    return chz.replace(
        base,
        model=MQSATED(),
        task=TransitionAware(),
        loader=chz.replace(base.loader, transforms=(NextTargets(), Transitions())),
        optimizer=Optimizer(lr=2e-3, b2=0.98, l2=((r".", 1e-4),)),
    )
