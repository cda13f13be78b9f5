"""DIN on the mall's clicks: past items and categories weighed by their relevance to the candidate.

    python -m train configs/din_mall.py --workdir runs/din

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.din import DIN
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DIN())
