"""DARE on the mall's clicks: narrow tables find the twenty behaviours that matter, others say what they mean.

    python -m train configs/dare_mall.py --workdir runs/dare

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.dare import DARE
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DARE(), history=50)
