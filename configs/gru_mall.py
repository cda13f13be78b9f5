"""GRU4Rec on the small mall: configs/sasrec_mall.py with another mixer of the history, all else alike.

python -m train configs/gru_mall.py --workdir runs/gru
"""

import chz

from configs import sasrec_mall
from modules.sequential.gru import GRU4Rec
from train.experiment import Experiment


def get_config() -> Experiment:
    return chz.replace(sasrec_mall.get_config(), model=GRU4Rec())
