"""IN-OUT on the mall's baskets: what goes with a product, by two embeddings of each.

python -m train configs/in_out_mall.py --workdir runs/in_out
python -m train configs/in_out_mall.py --workdir runs/in_in model.space=in-in
python -m train configs/in_out_mall.py --workdir runs/one model.space=one

Trained on the baskets of the training days; of later ones every pair is a query, and its other product is sought among
all of the mall. In the mall six purchases in ten bring their complement along, so that baskets are not too few for ids.
Figures: README, table of systems.
"""

from data.mall.baskets import MallTaken
from data.mall.config import Commerce, Mall
from data.mall.sources import MallProducts, Split
from data.pairs import PairsTogether
from data.pipeline import Loader
from data.transforms.negatives import PopularityNegatives
from modules.retrieval.in_out import InOut
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MRR, Recall
from train.optim import Optimizer
from train.tasks.skip_gram import SkipGram


def get_config() -> Experiment:
    return baskets(Mall(size="small", users=6_000, commerce=Commerce(together=0.6)))


def baskets(mall: Mall) -> Experiment:
    def pairs(split: Split) -> PairsTogether:
        return PairsTogether(log=MallTaken(mall=mall, split=split), direction="forward")

    def retrieval(split: Split) -> Retrieve:
        return Retrieve(
            source=pairs(split),
            corpus=MallProducts(mall=mall, views=()),
            history="given",
            metrics=(Recall(ks=(1, 10, 50)), MRR()),
        )

    return Experiment(
        model=InOut(),
        task=SkipGram(),
        source=pairs("train"),
        loader=Loader(
            batch_size=1024,
            transforms=(PopularityNegatives(items="item", target="item", alpha=0.5, count=5),),
        ),
        optimizer=Optimizer(lr=1e-2),
        evals={"valid": retrieval("valid"), "test": retrieval("test")},
        steps=600,
    )
