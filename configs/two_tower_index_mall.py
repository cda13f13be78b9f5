"""What an index costs: two towers' products found exactly, by ScaNN, and by a live index after updates.

python -m train configs/two_tower_index_mall.py --workdir runs/two_tower_index
python -m train configs/two_tower_index_mall.py --workdir runs/coarse evals.scann.way.recall=0.8

Of each way: recall of the product clicked next, how much of the exact list it keeps ("exact_recall"), the coverage of
the catalogue, and the seconds of a query, among others ("seconds_per_query") and alone. A mall of 8,000 products, as
ScaNN compares all of fewer than 4,096. Figures: docs/retrieval.md.
"""

import chz

from configs.two_tower_mall import two_tower
from data.mall.config import Mall
from data.mall.sources import MallProducts, MallQueries
from serve.index.way import ByIndex
from train.experiment import Experiment
from train.metrics.lists import ExactRecall
from train.metrics.ranking import Coverage, Recall
from train.retrieve_lists import Nearest, RetrieveLists
from train.ways import Way


def get_config() -> Experiment:
    mall = Mall(size="small", items=8_000)

    def lists(way: Way) -> RetrieveLists:
        return RetrieveLists(
            source=MallQueries(mall=mall, split="test"),
            corpus=MallProducts(mall=mall, views=()),
            way=way,
            one_by_one=500,
            metrics=(Recall(ks=(10, 100)), ExactRecall(ks=(10, 100)), Coverage(ks=(100,))),
        )

    ways = {"exact": Nearest(), "scann": ByIndex(), "live": ByIndex(engine="live")}
    return chz.replace(two_tower(mall), evals={name: lists(way) for name, way in ways.items()})
