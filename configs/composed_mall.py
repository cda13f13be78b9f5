"""A picture and words that change it ("red striped"), for the product that looks so: composed retrieval on the mall.

python -m train configs/composed_mall.py --workdir runs/composed
python -m train configs/composed_mall.py --workdir runs/composed_sum model.fusion=sum

Also model.fusion=image, text and combiner. Every look of the whole mall is ranked (leaf, theme, colour and pattern;
its first listing stands for it), the reference's own among them; products of the test rows are in no training row.
Figures: README, table of systems.
"""

from data.mall.composed import MallComposed, Split
from data.mall.config import Mall
from data.mall.searches import MallCatalogue
from data.pipeline import Loader
from modules.content.composed import Composed
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MedianRank, Recall
from train.optim import Optimizer
from train.tasks.contrastive import InBatchSoftmax


def get_config() -> Experiment:
    mall = Mall()

    def retrieval(split: Split) -> Retrieve:
        return Retrieve(
            source=MallComposed(mall=mall, split=split, most=1000),
            corpus=MallCatalogue(mall=mall, split="all", parts=("image",)),
            target="look",
            key="look",
            metrics=(Recall(ks=(1, 10, 50)), MedianRank()),
            batch_size=256,
        )

    return Experiment(
        model=Composed(),
        task=InBatchSoftmax(item="look"),
        source=MallComposed(mall=mall),
        loader=Loader(batch_size=256),
        optimizer=Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01),
        evals={"valid": retrieval("valid"), "test": retrieval("test")},
        steps=300,
    )
