"""360's global user representation on the small mall: views, clicks, buys, searches and watched videos of a person.

python -m train configs/user360_mall.py --workdir runs/user360
python -m train configs/user360_mall.py --workdir runs/user360_raw source.cleaning=None evals.next.source.cleaning=None

"next" ranks the next event of each person among all tokens, "few" of it those of whom ten events and fewer are known;
"interests" ranks all leaves for the person's own four, which no training row names. `task.align=0`, `task.interests=0`,
`task.logq=False` and `model.times=False` leave out an ingredient. `python -m serve embed runs/user360 --source train
--id user --vectors user --output people` writes the vectors. A token is in few batches, kinds and hours are in all:
steps ten times as long let its vector keep pace with theirs.
Figures: docs/people.md.
"""

from data.mall.global_users import MallGlobalUsers
from data.pipeline import Loader
from data.transforms.sequences import Cloze
from data.transforms.shared_negatives import SharedNegatives
from modules.sequential.gur360 import GlobalUser
from train.evaluators import RankItems, Slice
from train.experiment import Experiment
from train.metrics.ranking import NDCG, HitRate, Recall
from train.optim import Optimizer
from train.rank_named import RankNamed
from train.tasks.global_user import GlobalUserLoss

FEW = 10


def get_config() -> Experiment:
    later = MallGlobalUsers(split="test")
    few = {"few": Slice(feature="behaviour/length", below=FEW + 1)}
    return Experiment(
        model=GlobalUser(),
        task=GlobalUserLoss(),
        source=MallGlobalUsers(),
        loader=Loader(
            batch_size=128,
            transforms=(SharedNegatives(items="behaviour"), Cloze(history="behaviour", rate=0.2, last=0.5)),
        ),
        optimizer=Optimizer(
            algorithm="adamw",
            lr=2e-3,
            warmup_steps=20,
            lr_schedule="cosine",
            weight_decay=0.01,
            lr_scale=(("^token/", 10.0),),
        ),
        evals={
            "next": RankItems(source=later, metrics=(HitRate(ks=(10,)), NDCG(ks=(10,))), slices=few),
            "interests": RankNamed(
                source=later, target="true_interests", scores="interests", metrics=(Recall(ks=(5,)),), slices=few
            ),
        },
        steps=300,
    )
