"""Unified Embedding on the mall's clicks: all fields share one hashed table of 40 percent of their rows.

    python -m train configs/unified_embedding_mall.py --workdir runs/unified_embedding

Any tower takes it: model.embedding is `Embedding(multiplex=Multiplex(rows=..., chunk=...))`.
Figures: README, table of systems.
"""

from configs.common import click_experiment
from modules.ctr.dcnv2 import DCNv2
from modules.layers.embedding import Embedding
from modules.layers.multiplex import Multiplex
from train.experiment import Experiment


def get_config() -> Experiment:
    return click_experiment(DCNv2(embedding=Embedding(multiplex=Multiplex(rows=5_000, chunk=8))))
