"""DCN V2 on the mall's clicks: cross layers beside a multi-layer perceptron.

    python -m train configs/dcnv2_mall.py --workdir runs/dcnv2

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.dcnv2 import DCNv2
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DCNv2())
