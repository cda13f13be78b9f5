"""What reads a history, on Amazon 2014 Beauty (5-core): a recurrent state, attention, HSTU's blocks, a random function.

ADLOOM_DATA=... python -m train configs/backbones_beauty.py --workdir runs/backbones_beauty [--only hstu]

Each is configs/sasrec_beauty.py with another model, IDNP with a loss of its own.
No full run is recorded yet.
"""

import chz

from configs import sasrec_beauty
from data.pipeline import Loader
from data.transforms.history import RandomPrefix
from modules.sequential.gru import GRU4Rec
from modules.sequential.hstu import HSTU
from modules.sequential.idnp import IDNP
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.tasks.interest_dynamics import InterestDynamics


def get_config() -> Pipeline:
    attention = sasrec_beauty.get_config()
    rows = {
        "attention": attention,
        "recurrent": chz.replace(attention, model=GRU4Rec(dropout=0.5)),
        "hstu": chz.replace(attention, model=HSTU(dropout=0.5)),
        "idnp": chz.replace(
            attention,
            model=IDNP(dropout=0.5),
            task=InterestDynamics(),
            loader=Loader(batch_size=256, transforms=(RandomPrefix(),)),
            optimizer=Optimizer(lr=2e-3),
        ),
    }
    return Pipeline(
        stages={
            **{name: Train(experiment=experiment) for name, experiment in rows.items()},
            "gain": Compare(
                title="Next products by what reads the history",
                rows={name: f"@{name}" for name in rows},
                metrics=("valid/hit_rate@10", "valid/ndcg@10", "floor/hybrid/ndcg@10"),
            ),
        }
    )
