"""QIN on the mall's clicks: attention that counts what is alike, and quadratic layers over all fields.

    python -m train configs/qin_mall.py --workdir runs/qin
    python -m train configs/qin_mall.py --workdir runs/qin_softmax model.normalise=softmax

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.qin import QIN
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(QIN())
