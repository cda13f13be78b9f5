"""SASRec on the small mall: the next product from a user's views and clicks, by one of four losses.

python -m train configs/sasrec_mall.py --workdir runs/sasrec
python -m train configs/sasrec_mall.py --workdir runs/sasrec_bce task.objective=bce
python -m train configs/sasrec_mall.py --workdir runs/by_time \\
    source.by=time evals.valid.source.by=time evals.test.source.by=time

Full ranking over the catalogue, the history left out. Spec 1: full softmax beats binary with one negative. Slices: by
the length of the history, and by how long ago the item sought had arrived. The third command splits by time: training
knows nothing of the days in which it is judged.
Figures: README, table of systems.
"""

from data.mall.config import Mall
from data.mall.sources import MallSequences, Split
from data.pipeline import Loader
from data.transforms.history import NextTargets, UniformNegatives
from modules.sequential.sasrec import SASRec
from train.evaluators import RankItems, Slice
from train.experiment import Experiment
from train.metrics.ranking import NDCG, HitRate
from train.optim import Optimizer
from train.tasks.next_item import NextItem

SLICES = {
    "short": Slice(feature="history/length", below=10),
    "long": Slice(feature="history/length", at_least=30),
    "new": Slice(feature="target_age", below=7),
    "old": Slice(feature="target_age", at_least=7),
}


def get_config() -> Experiment:
    mall, length = Mall(size="small"), 30

    def ranking(split: Split) -> RankItems:
        source = MallSequences(mall=mall, split=split, max_len=length)
        return RankItems(source=source, history="history", metrics=(HitRate(ks=(5, 20)), NDCG(ks=(20,))), slices=SLICES)

    return Experiment(
        model=SASRec(),
        task=NextItem(objective="softmax"),
        source=MallSequences(mall=mall, max_len=length),
        loader=Loader(batch_size=128, transforms=(NextTargets(), UniformNegatives())),
        optimizer=Optimizer(lr=2e-3, b2=0.98),
        evals={"valid": ranking("valid"), "test": ranking("test")},
        steps=400,
    )
