"""AlphaRec on the small mall: people and listings from the vectors of texts alone, an MLP and a graph.

python -m train configs/alpharec_mall.py --workdir runs/alpharec
python -m train configs/alpharec_mall.py --workdir runs/alpharec_probe model.hidden= model.layers=0
python -m train configs/alpharec_mall.py --workdir runs/alpharec_shuffled init_from.shuffled=True

From training's last day on all listings are ranked for each person: "later" what they took later, "cold" of it what
nobody could take before. `init_from.shuffled` is the paper's control: every listing has another's text. Negatives are
drawn once a batch, not once a row.
Figures: docs/people.md.
"""

from data.mall.config import Mall
from data.mall.readers import MallListings
from data.mall.takers import MallTakers
from data.pipeline import Loader
from data.transforms.shared_negatives import SharedNegatives
from modules.retrieval.alpharec import AlphaRec
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.graph_start import GraphFrom
from train.metrics.ranking import NDCG, Recall
from train.optim import Optimizer
from train.tasks.sampled_contrast import SampledContrast


def get_config() -> Experiment:
    mall = Mall(size="small")

    def later(*, cold: bool = False) -> Retrieve:
        return Retrieve(
            source=MallTakers(mall=mall, split="test", cold=cold),
            corpus=MallListings(mall=mall),
            target="taken",
            history="history",
            metrics=(Recall(ks=(20,)), NDCG(ks=(20,))),
        )

    return Experiment(
        model=AlphaRec(),
        task=SampledContrast(),
        source=MallTakers(mall=mall),
        loader=Loader(batch_size=1024, transforms=(SharedNegatives(items="item", count=1, uniform=1.0),)),
        optimizer=Optimizer(lr=1e-3),
        init_from=GraphFrom(pairs=MallTakers(mall=mall), items=MallListings(mall=mall)),
        evals={"later": later(), "cold": later(cold=True)},
        steps=200,
    )
