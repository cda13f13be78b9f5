"""eSSPR on the mall: products of one style by picture, by words or by both, learned from clicked photo searches.

python -m train configs/esspr_mall.py --workdir runs/esspr
python -m train configs/esspr_mall.py --workdir runs/esspr_split task.distinct=0
python -m train configs/esspr_mall.py --workdir runs/esspr_alone task.across=alike
python -m train configs/esspr_mall.py --workdir runs/esspr_raw source.rule.users=1 source.rule.category=False

A pair is a photo and an offer of its category that two users clicked for it. Listings of equal picture and title are no
negatives of each other, whatever product they are filed under. Judged on products that no pair shows, by another
seller's listing: of fashion, whose pictures tell, of hardware, which has stock photos, and of all.
Figures: README, table of systems.
"""

from data.clicked_pairs import ClickRule
from data.mall.config import Mall
from data.mall.image_search import ImageSearch
from data.mall.same_style import Family, MallClickedPairs, MallSameStyle
from data.pipeline import Loader
from data.transforms.same_content import SameContent
from modules.content.esspr import Esspr
from train.evaluators import Evaluator
from train.experiment import Experiment
from train.metrics.ranking import MRR, Recall
from train.optim import Optimizer
from train.retrieve_across import RetrieveBetween
from train.tasks.same_style import EVERY, MODALITIES, SameStyle


def get_config() -> Experiment:
    mall = Mall()

    def retrieval(family: Family) -> Evaluator:
        return RetrieveBetween(
            source=MallSameStyle(mall=mall, family=family),
            target="spu",
            key="spu",
            domains=(*MODALITIES, *(f"offer_{name}" for name in MODALITIES)),
            directions=tuple((a, f"offer_{b}") for a, b in EVERY),
            metrics=(Recall(ks=(1, 5, 10)), MRR()),
            batch_size=128,
        )

    return Experiment(
        model=Esspr(),
        task=SameStyle(same=("content", "offer_content")),
        source=MallClickedPairs(search=ImageSearch(mall=mall), rule=ClickRule(users=2)),
        loader=Loader(
            batch_size=64,
            transforms=tuple(
                SameContent(views=(f"{side}image", f"{side}title"), name=f"{side}content") for side in ("", "offer_")
            ),
        ),
        optimizer=Optimizer(algorithm="adamw", lr=1e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01),
        evals={"test": retrieval("all"), "fashion": retrieval("fashion"), "hardware": retrieval("hardware")},
        steps=200,
    )
