"""AutoInt on the mall's clicks: fields that attend to each other.

    python -m train configs/autoint_mall.py --workdir runs/autoint

AutoInt+, with a deep part beside, is `model.mlp=MLP model.mlp.widths=256,128`. With layer norm and scaled logits, as
the benchmarks have it: three ReLU layers without them learn little more than a sum in one pass (AUC .718). Figures:
README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.autoint import AutoInt
from modules.layers.embedding import Embedding
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(AutoInt(embedding=Embedding(std=0.1), scale=True, layer_norm=True))
