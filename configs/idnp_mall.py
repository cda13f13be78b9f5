"""IDNP on the small mall: the next product from windows of a history, as values of a random function of time.

python -m train configs/idnp_mall.py --workdir runs/idnp
python -m train configs/idnp_mall.py --workdir runs/idnp_deterministic model.paths=deterministic
python -m train configs/idnp_mall.py --workdir runs/idnp_single model.scales=1

Full ranking over the catalogue, the history left out.
Figures: README, table of systems.
"""

import chz

from configs import sasrec_mall
from data.pipeline import Loader
from data.transforms.history import RandomPrefix
from modules.sequential.idnp import IDNP
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.interest_dynamics import InterestDynamics


def get_config() -> Experiment:
    return chz.replace(
        sasrec_mall.get_config(),
        model=IDNP(),
        task=InterestDynamics(),
        loader=Loader(batch_size=256, transforms=(RandomPrefix(),)),
        optimizer=Optimizer(lr=2e-3),
        steps=800,
    )
