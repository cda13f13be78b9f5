"""InterBERT on the mall's pictures and titles: hidden spans, hidden regions, and whether both match.

python -m train configs/interbert_mall.py --workdir runs/interbert
python -m train configs/interbert_mall.py --workdir runs/interbert_one_stream model.streams=False
python -m train configs/interbert_mall.py --workdir runs/interbert_unmatched task.itm=0
python -m train configs/interbert_mall.py --workdir runs/interbert_any loader.transforms.0.hard=1

Half of the pairs are mismatched, by titles that share rare words with the right one. Every test title is scored with
the pictures of 100 products, which is what a cross-encoder can afford; "words" and "pictures" probe each side alone.
Figures: README, table of systems.
"""

from data.mall.classes import MallClasses
from data.mall.config import Mall
from data.mall.sources import MallPairs, Split
from data.mall.views.features import View
from data.pipeline import Loader
from data.transforms.mismatch import Mismatch
from modules.content.interbert import InterBERT
from train.experiment import Experiment
from train.linear_probe import LinearProbe
from train.metrics.ranking import MRR, MedianRank, Recall
from train.optim import Optimizer
from train.retrieve_pairs import RetrievePairs
from train.tasks.match_and_tell import MatchAndTell


def get_config() -> Experiment:
    mall = Mall()

    def retrieval(split: Split) -> RetrievePairs:
        return RetrievePairs(
            source=MallPairs(mall=mall, split=split),
            metrics=(Recall(ks=(1, 5, 10)), MRR(), MedianRank()),
            batch_size=500,
        )

    def probe(view: View, vector: str) -> LinearProbe:
        def alone(split: Split) -> MallClasses:
            pairs = MallPairs(mall=mall, split=split, views=(view,))
            return MallClasses(of=pairs, mall=mall, classes=("leaf", "colour"))

        return LinearProbe(source=alone("test"), support=alone("train"), labels=("leaf", "colour"), vector=vector)

    return Experiment(
        model=InterBERT(),
        task=MatchAndTell(),
        source=MallPairs(mall=mall),
        loader=Loader(batch_size=128, transforms=(Mismatch(),)),
        optimizer=Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01),
        evals={
            "valid": retrieval("valid"),
            "test": retrieval("test"),
            "words": probe("title", "text"),
            "pictures": probe("image", "image"),
        },
        steps=400,
    )
