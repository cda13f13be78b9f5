"""Wide & Deep on the mall's clicks: crossed segments and queries beside a multi-layer perceptron.

    python -m train configs/wide_deep_mall.py --workdir runs/wide_deep

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.wide_deep import WideDeep
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(WideDeep(crosses=(("segment", "category"), ("query", "category"))))
