"""ESMM on the mall: the conversion rate after a click, learned from all impressions.

    python -m train configs/esmm_mall.py --workdir runs/esmm
    python -m train configs/esmm_mall.py --workdir runs/cvr task.heads.purchase.weight=0 task.heads.cvr.weight=1

The second is the usual way: the same towers, the conversion tower taught by clicked impressions alone. Both are
measured on all impressions by the mall's true chance of a purchase after a click (`cvr/auc/expected`).
Figures: README, table of systems.
"""

from configs.funnel import CLICK, CVR, PURCHASE, funnel_experiment
from modules.ctr.esmm import ESMM
from train.experiment import Experiment
from train.tasks.multi_task import Head, MultiTask


def get_config() -> Experiment:
    heads = {
        "click": Head(label="click"),
        "purchase": Head(label="purchase"),
        "cvr": Head(label="purchase", where="click", weight=0.0),
    }
    return funnel_experiment(ESMM(), task=MultiTask(heads=heads), metrics=(*CLICK, *PURCHASE, *CVR))
