"""DeepFM on the mall's clicks: a factorization machine and a deep tower on the same embeddings.

    python -m train configs/deepfm_mall.py --workdir runs/deepfm

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.deepfm import DeepFM
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DeepFM())
