"""Two towers whose item tower also learns to tell items of the whole corpus apart, by masked views of their fields.

python -m train configs/ssl_two_tower_mall.py --workdir runs/ssl
python -m train configs/ssl_two_tower_mall.py --workdir runs/none task.alpha=0
python -m train configs/ssl_two_tower_mall.py --workdir runs/rfm loader.transforms.0.masking=random

The rows and the towers are those of two_tower_mall. "tail": the product sought is of the half that training shows less.
Figures: README, table of systems.
"""

import chz

from configs import two_tower_mall
from data.mall.config import Mall
from data.mall.sources import MallProducts, MallQueries, Split
from data.pipeline import Loader
from data.transforms.masked_views import MaskedViews
from data.transforms.popularity import Popularity
from modules.retrieval.ssl_two_tower import SSLTwoTower
from train.evaluators import Retrieve, Slice
from train.experiment import Experiment
from train.metrics.ranking import MRR, Recall
from train.tasks.self_supervised import SelfSupervised


def get_config() -> Experiment:
    mall = Mall(size="small")
    corpus = MallProducts(mall=mall, views=())

    def retrieval(split: Split) -> Retrieve:
        return Retrieve(
            source=MallQueries(mall=mall, split=split),
            corpus=corpus,
            transforms=(Popularity(seen=MallQueries(mall=mall)),),
            metrics=(Recall(ks=(10, 50, 100)), MRR()),
            slices={"tail": Slice(feature="item_popularity", below=0.5), "cold": Slice(feature="is_cold", equals=1)},
        )

    base = two_tower_mall.get_config()
    return chz.replace(
        base,
        model=SSLTwoTower(),
        task=SelfSupervised(logq="item_logq"),
        loader=Loader(batch_size=512, transforms=(MaskedViews(items=corpus),)),
        evals={"valid": retrieval("valid"), "test": retrieval("test")},
    )
