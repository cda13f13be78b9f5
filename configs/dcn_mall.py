"""DCN on the mall's clicks: vector crosses beside a multi-layer perceptron.

    python -m train configs/dcn_mall.py --workdir runs/dcn

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.dcn import DCN
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DCN())
