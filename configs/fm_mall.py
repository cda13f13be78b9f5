"""FM on the mall's clicks: pairs of fields by inner product.

    python -m train configs/fm_mall.py --workdir runs/fm

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.fm import FM
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(FM())
