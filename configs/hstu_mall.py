"""HSTU on the small mall: configs/sasrec_mall.py with another mixer of the history, all else alike.

python -m train configs/hstu_mall.py --workdir runs/hstu
"""

import chz

from configs import sasrec_mall
from modules.sequential.hstu import HSTU
from train.experiment import Experiment


def get_config() -> Experiment:
    return chz.replace(sasrec_mall.get_config(), model=HSTU())
