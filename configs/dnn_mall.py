"""DNN on the mall's clicks: embeddings and a multi-layer perceptron, histories averaged.

    python -m train configs/dnn_mall.py --workdir runs/dnn

Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.dnn import DNN
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DNN())
