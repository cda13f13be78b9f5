"""LEARN on the mall: people and listings in one space, from the texts of what people looked at and clicked.

python -m train configs/learn_mall.py --workdir runs/learn
python -m train configs/learn_mall.py --workdir runs/learn_next ...window=1 ...targets=1 ...positions=1 ...newest=True
python -m train configs/learn_mall.py --workdir runs/learn_ids model.reads=ids

The vectors of the texts are hashed TF-IDF unless `source.content`, and `content` of each evaluator's source and corpus,
name a folder that a language model wrote (`minilm_texts_mall`). From training's last day on, all listings are ranked:
"next" the first new item, "horizon" the first 20, "cold" those of them that nobody could see in training.
Figures: docs/people.md.
"""

from data.mall.config import Mall
from data.mall.readers import MallListings, MallReaders
from data.pipeline import Loader
from data.transforms.all_actions import AllActions
from modules.sequential.learn import LEARN
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import NDCG, Recall
from train.optim import Optimizer
from train.tasks.all_actions import AllActionsLoss


def get_config() -> Experiment:
    return learn(Mall())


def learn(mall: Mall, *, content: str | None = None) -> Experiment:
    def ahead(*, most: int, cold: bool = False) -> Retrieve:
        return Retrieve(
            source=MallReaders(mall=mall, split="test", most=most, cold=cold, content=content),
            corpus=MallListings(mall=mall, content=content),
            target="taken",
            history="history",
            metrics=(Recall(ks=(10, 50)), NDCG(ks=(10,))),
        )

    return Experiment(
        model=LEARN(),
        task=AllActionsLoss(),
        source=MallReaders(mall=mall, content=content),
        loader=Loader(batch_size=128, transforms=(AllActions(),)),
        optimizer=Optimizer(algorithm="adamw", lr=4e-3, warmup_steps=20, lr_schedule="cosine", weight_decay=0.01),
        evals={"next": ahead(most=1), "horizon": ahead(most=20), "cold": ahead(most=20, cold=True)},
        steps=250,
    )
