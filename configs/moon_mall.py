"""MOON on the mall: clicks after searches by picture or by words, and what the vectors then know (MBE's tasks).

python -m train configs/moon_mall.py --workdir runs/moon
python -m train configs/moon_mall.py --workdir runs/moon_whole model.core=False
python -m train configs/moon_mall.py --workdir runs/moon_routed model.experts.guided=False
python -m train configs/moon_mall.py --workdir runs/moon_batch model.bank=0 source.hard=False
python -m train configs/moon_mall.py --workdir runs/moon_mean model.pool=mean

On products that no training row shows: from a picture, from words and from another listing's page to the listing, among
all of theirs; and leaf and attributes by the nearest class name, of pages that state neither.
Words are learned from scratch here. It takes a last token that pools, since two tokens in three of a mean would be a
picture's, and steps ten times as long for the vectors of words, each of which few batches hold.
Figures: README, table of systems.
"""

from typing import Literal

from data.mall.classes import MallClasses, MallPrompts
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES
from data.mall.searches import MallCatalogue, MallSearches
from data.pipeline import Loader
from modules.content.moon import MOON
from train.class_names import ClassNames
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MedianRank, Recall
from train.optim import Optimizer
from train.retrieve_named import RetrieveNamed
from train.tasks.contrastive import Contrastive

CLASSES = ("leaf", *ATTRIBUTES)


def get_config() -> Experiment:
    mall = Mall()
    page = MallCatalogue(mall=mall, split="test", parts=("image", "title"))

    def retrieval(asked: Literal["image", "words", "listing"]) -> Retrieve:
        return RetrieveNamed(
            source=MallSearches(mall=mall, split="test", asked=asked),
            corpus=MallCatalogue(mall=mall, split="test"),
            target="sought",
            key="item",
            history="hidden",
            asks="item" if asked == "listing" else "query",
            metrics=(Recall(ks=(1, 10)), MedianRank()),
            batch_size=128,
        )

    return Experiment(
        model=MOON(bank_after=300, pool="last"),
        task=Contrastive(label="spu"),
        source=MallSearches(mall=mall, hard=True),
        loader=Loader(batch_size=64),
        optimizer=Optimizer(
            algorithm="adamw",
            lr=1e-3,
            warmup_steps=30,
            lr_schedule="cosine",
            weight_decay=0.01,
            lr_scale=(("^tokens/", 10.0),),
        ),
        evals={
            "image": retrieval("image"),
            "words": retrieval("words"),
            "listing": retrieval("listing"),
            "class": ClassNames(
                source=MallClasses(of=page, mall=mall, classes=CLASSES),
                prompts={name: MallPrompts(of=name, mall=mall, text="query_title") for name in CLASSES},
                batch_size=128,
            ),
        },
        steps=350,
    )
