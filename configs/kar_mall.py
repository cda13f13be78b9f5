"""KAR on the mall's impressions: DIN with what a language model knows of items and says of people, adapted by experts.

python -m train configs/kar_mall.py --workdir runs/kar
python -m train configs/kar_mall.py --workdir runs/kar_mlp model.adaptor.kind=single
python -m train configs/kar_mall.py --workdir runs/kar_none model.reads=

Stand-ins write the knowledge (data/mall/knowledge.py). Ids are those of the training days.
Figures: docs/people.md.
"""

import chz

from configs.common import HISTORY, click_experiment
from data.mall.config import Mall
from data.mall.knowledge import MallKnowledge
from data.mall.sources import Split
from modules.behavior.din import DIN
from modules.behavior.kar import KAR
from train.experiment import Experiment


def get_config() -> Experiment:
    def source(split: Split) -> MallKnowledge:
        return MallKnowledge(mall=Mall(), split=split, history=HISTORY)

    base = click_experiment(KAR(tower=DIN(product=True)))
    return chz.replace(
        base, source=source("train"), evals={"valid": chz.replace(base.evals["valid"], source=source("valid"))}
    )
