"""Clicks and purchases on the mall from one shared trunk: the baseline of multi-task towers.

    python -m train configs/shared_bottom_mall.py --workdir runs/shared_bottom

Figures: README, table of systems.
"""

from configs.funnel import click_and_purchase
from modules.ctr.shared_bottom import SharedBottom
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_and_purchase(SharedBottom())
