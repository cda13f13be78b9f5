"""AW-MoE on the mall's clicks: experts mixed by what the user did, as the query asks.

    python -m train configs/aw_moe_mall.py --workdir runs/aw_moe
    python -m train configs/aw_moe_mall.py --workdir runs/one_expert model.experts=1 model.mlp.widths=557,64

The second is one tower of the same number of parameters, without a gate.
Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.behavior.aw_moe import AWMoE
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(AWMoE(query="query"))
