"""Two towers on the small mall: products for a user and a query, from clicks with in-batch negatives and logQ.

python -m train configs/two_tower_mall.py --workdir runs/two_tower
python -m train configs/two_tower_mall.py --workdir runs/two_tower_raw task.logq=None

Exact retrieval of the clicked product among all products. Without logQ, popular products are held down.
Figures: README, table of systems.
"""

from data.mall.config import Mall
from data.mall.sources import MallProducts, MallQueries, Split
from data.pipeline import Loader
from modules.retrieval.two_tower import TwoTower
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MRR, Recall
from train.optim import Optimizer
from train.tasks.contrastive import InBatchSoftmax


def get_config() -> Experiment:
    return two_tower(Mall(size="small"))


def two_tower(mall: Mall) -> Experiment:
    def retrieval(split: Split) -> Retrieve:
        return Retrieve(
            source=MallQueries(mall=mall, split=split),
            corpus=MallProducts(mall=mall),
            metrics=(Recall(ks=(10, 100)), MRR()),
        )

    return Experiment(
        model=TwoTower(),
        task=InBatchSoftmax(logq="item_logq"),
        source=MallQueries(mall=mall),
        loader=Loader(batch_size=512),
        optimizer=Optimizer(lr=2e-3),
        evals={"valid": retrieval("valid"), "test": retrieval("test")},
        steps=600,
    )
