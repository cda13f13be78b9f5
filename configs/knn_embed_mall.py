"""kNN-Embed on the mall: mixtures of interests over the vectors of two towers, without further training.

python -m train configs/knn_embed_mall.py --workdir runs/knn_embed
python -m train configs/knn_embed_mall.py --workdir runs/knn_wide evals.smoothed.way.neighbours=50

One list per person, of what is new to them: by one vector ("single"), by the person's own mixture ("mixture"), and by
the mixture that like-minded people smooth ("smoothed"). Targets are the products clicked after the training days.
Figures: README, table of systems.
"""

import chz

from configs import two_tower_mall
from data.mall.config import Mall
from data.mall.interests import MallInterests
from data.mall.sources import MallProducts
from train.experiment import Experiment
from train.metrics.lists import Diversity, ExactRecall, InterestCoverage
from train.metrics.ranking import Coverage, Recall
from train.retrieve_lists import KnnEmbed, Nearest, RetrieveLists
from train.ways import Way


def get_config() -> Experiment:
    mall = Mall(size="small")

    def lists(way: Way) -> RetrieveLists:
        return RetrieveLists(
            source=MallInterests(mall=mall),
            corpus=MallProducts(mall=mall, views=()),
            target="taken",
            history="history",
            groups="category",
            way=way,
            metrics=(
                Recall(ks=(10, 50)),
                InterestCoverage(ks=(10, 50)),
                Diversity(ks=(50,)),
                Coverage(ks=(50,)),
                ExactRecall(ks=(50,)),
            ),
        )

    return chz.replace(
        two_tower_mall.get_config(),
        evals={
            "single": lists(Nearest()),
            "mixture": lists(KnnEmbed(smoothing=0.0)),
            "smoothed": lists(KnnEmbed()),
        },
    )
