"""FinalMLP on the mall's clicks: two gated streams, the user's and the item's view of the features, and their products.

    python -m train configs/finalmlp_mall.py --workdir runs/finalmlp

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.finalmlp import FinalMLP
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(FinalMLP(context1=("user",), context2=("item",), heads=4))
