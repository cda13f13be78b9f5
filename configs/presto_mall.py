"""PRESTO on the mall: impression, click, cart, purchase; the rare last step shares slopes with the common ones.

    python -m train configs/presto_mall.py --workdir runs/presto
    python -m train configs/presto_mall.py --workdir runs/independent task.linked=False model.strength=0

The second has the same tower and an independent logit for each step.
Figures: README, table of systems.
"""

from configs.funnel import CLICK, PURCHASE, funnel_experiment
from modules.ctr.presto import Presto
from train.experiment import Experiment
from train.tasks.ordinal import Ordinal


def get_config() -> Experiment:
    return funnel_experiment(Presto(), task=Ordinal(), metrics=(*CLICK, *PURCHASE))
