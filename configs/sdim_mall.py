"""SDIM on the mall's clicks: the whole history by hash collisions, the newest behaviours by an activation unit.

    python -m train configs/sdim_mall.py --workdir runs/sdim
    python -m train configs/sdim_mall.py --workdir runs/din_long model.hashes=0

The second lets the unit weigh the whole history too (DIN-long), which the collisions stand in for.
Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.sdim import SDIM
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(SDIM(), history=64)
