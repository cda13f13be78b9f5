"""VED on the mall: pictures learned with and without clicks, and what a click tower on photo searches makes of them.

python -m train configs/ved_mall.py --workdir runs/ved
python -m train configs/ved_mall.py --workdir runs/ved_naive stages.clicked.experiment.task.pool=batch
python -m train configs/ved_mall.py --workdir runs/ved_clicks stages.clicked.experiment.task.views=0

an encoder by self-supervision -> the same fine-tuned by clicks and self-supervision -> item vectors of both -> a tower
on each, and one with the debiasing network. The log shows what is popular; `uniform` are slots filled by chance, of
which `head` are the fifth of the items shown most in training and `tail` the half shown least. In the mall popularity
is drawn without regard to looks, so that pictures hold little of it for the debiasing network to take out.
Figures: README, table of systems.
"""

from data.clicked_pairs import ClickRule
from data.mall.config import Mall
from data.mall.image_clicks import MallImageClicks
from data.mall.image_search import ImageSearch
from data.mall.same_style import MallClickedPairs, MallSameStyle
from data.mall.sources import MallProducts
from data.pipeline import Loader
from data.transforms.self_views import SelfViews
from modules.content.ved import VedTower, VisualEncoder
from modules.encoders.vision import ConvNet
from serve.stages import Embed
from train.evaluators import Evaluate, Slice
from train.experiment import Experiment
from train.init_from import InitFrom
from train.metrics.auc import AUC
from train.metrics.point import LogLoss
from train.metrics.ranking import MRR, Recall
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.retrieve_across import RetrieveBetween
from train.tasks.click_supervised import ClickSupervised
from train.tasks.pointwise import Pointwise

SEARCH = ImageSearch(mall=Mall())
CATALOGUE = MallProducts(mall=SEARCH.mall, views=("image",))


def get_config() -> Pipeline:
    rows = {
        "self_supervised": tower(VedTower(debias=0), content="@alone_items/vectors.npz"),
        "with_clicks": tower(VedTower(debias=0), content="@clicked_items/vectors.npz"),
        "debiased": tower(
            VedTower(anchor="anchor"), content="@clicked_items/vectors.npz", anchor="@alone_items/vectors.npz"
        ),
    }
    return Pipeline(
        stages={
            "alone": Train(experiment=encoder(ClickSupervised(clicks=0, views=1))),
            "clicked": Train(experiment=encoder(ClickSupervised(), start=InitFrom(workdir="@alone"))),
            "alone_items": Embed(of="@alone", source=CATALOGUE, vectors=("query",)),
            "clicked_items": Embed(of="@clicked", source=CATALOGUE, vectors=("query",)),
            **rows,
            "gain": Compare(
                title="What clicks add to pictures, and what the debiasing network gives back to the tail",
                rows={name.replace("_", " "): f"@{name}" for name in rows},
                metrics=("logged/auc", "uniform/auc", "uniform/head/auc", "uniform/tail/auc"),
            ),
        }
    )


def encoder(task: ClickSupervised, *, start: InitFrom | None = None) -> Experiment:
    """Trained on clicked pairs and the whole catalogue; judged on products without a pair, by another's picture."""
    return Experiment(
        model=VisualEncoder(vision=ConvNet(widths=(24, 48, 96))),
        task=task,
        source=MallClickedPairs(search=SEARCH, rule=ClickRule(users=1), parts=("image",), stock=False),
        loader=Loader(batch_size=128, transforms=(SelfViews(items=CATALOGUE),)),
        optimizer=Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=20, lr_schedule="cosine", weight_decay=0.01),
        evals={
            "style": RetrieveBetween(
                source=MallSameStyle(mall=SEARCH.mall, parts=("image",), stock=False),
                target="spu",
                key="spu",
                domains=("query", "item"),
                directions=(("query", "item"),),
                metrics=(Recall(ks=(1, 10)), MRR()),
                batch_size=128,
            )
        },
        steps=120,
        init_from=start,
    )


def tower(model: VedTower, *, content: str, anchor: str | None = None) -> Train:
    def rows(**words) -> MallImageClicks:
        return MallImageClicks(search=SEARCH, content=content, anchor=anchor, **words)

    def judged(source: MallImageClicks, slices: dict[str, Slice]) -> Evaluate:
        return Evaluate(source=source, metrics=(AUC(), LogLoss()), slices=slices, batch_size=4096)

    halves = {"head": Slice(feature="exposure", at_least=0.8), "tail": Slice(feature="exposure", below=0.5)}
    return Train(
        experiment=Experiment(
            model=model,
            task=Pointwise(),
            source=rows(),
            loader=Loader(batch_size=1024),
            optimizer=Optimizer(lr=2e-3),
            evals={
                "logged": judged(rows(split="test"), {}),
                "uniform": judged(rows(split="test", shown="uniform"), halves),
            },
            steps=400,
        )
    )
