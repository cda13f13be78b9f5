"""xDeepFM on the mall's clicks: a compressed interaction network beside a linear and a deep part.

    python -m train configs/xdeepfm_mall.py --workdir runs/xdeepfm

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.xdeepfm import xDeepFM
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(xDeepFM(cin=(32, 32)))
