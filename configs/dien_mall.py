"""DIEN on the mall's clicks: interests that evolve towards the candidate.

    python -m train configs/dien_mall.py --workdir runs/dien

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.dien import DIEN
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DIEN())
