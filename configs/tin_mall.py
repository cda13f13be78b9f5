"""TIN on the mall's clicks: what was clicked and how long ago, met with the candidate in one product.

    python -m train configs/tin_mall.py --workdir runs/tin

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.tin import TIN
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(TIN())
