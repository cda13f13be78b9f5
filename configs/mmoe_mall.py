"""MMoE on the mall: clicks and purchases each mix four shared experts by a gate of their own.

    python -m train configs/mmoe_mall.py --workdir runs/mmoe

Against `configs/shared_bottom_mall.py`. Figures: README, table of systems.
"""

from configs.funnel import click_and_purchase
from modules.ctr.mmoe import MMoE
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_and_purchase(MMoE())
