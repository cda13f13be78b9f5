"""LR on the mall's clicks: logistic regression, the floor that every other click tower must leave.

    python -m train configs/lr_mall.py --workdir runs/lr

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.lr import LR
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(LR(), lr=1e-2)
