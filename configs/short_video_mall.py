"""Short videos by an image-text model tuned on the shop's catalogue, for people who have never watched any.

python -m train configs/short_video_mall.py --workdir runs/short_video
python -m train configs/short_video_mall.py --workdir runs/plain_mean ...half_life=None

The encoder comes from another shop (a mall of another seed, with other products and other words for them): it stands in
for public weights. "tuned" goes on from them on this shop's pictures and titles, no video among them; "as_it_came" is
what the weights do unchanged; "scratch" has the catalogue alone. "space": product to video, video to product and title
to video, on products that tuning did not show. "people": the video of the next click by what people looked at before.
"supervised" learns who finishes which video from a log that place and length bias; "replay" ranks without either.
Figures: README, table of systems.
"""

import chz

from configs import image_text_mall
from data.mall.config import Mall
from data.mall.shoppers import MallShoppers
from data.mall.sources import MallPairs, MallProducts
from data.mall.triples import MallTriples
from data.mall.watches import MallReplay, MallWatches
from data.pipeline import Loader
from modules.content.short_video import ShortVideo
from modules.ctr.dnn import DNN
from train.evaluators import Slice
from train.experiment import Experiment
from train.init_from import InitFrom
from train.metrics.ranking import MRR, MedianRank, Recall
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.recommend import RecommendVideos
from train.replay import Replay, ReplayByContent
from train.space import Space
from train.tasks.pointwise import Pointwise
from train.tasks.videos import VideoContrastive

ELSEWHERE = Mall(seed=7)


def get_config() -> Pipeline:
    mall = Mall()
    scratch = catalogue(mall)
    tuned = chz.replace(scratch, init_from=InitFrom(workdir="@encoder", strict=True))
    supervised = Experiment(
        model=DNN(),
        task=Pointwise(label="complete"),
        source=MallWatches(mall=mall),
        loader=Loader(batch_size=1024),
        optimizer=Optimizer(lr=3e-3),
        evals={
            "replay": Replay(
                source=MallReplay(mall=mall),
                mall=mall,
                logged=MallWatches(mall=mall, split="valid"),
                metrics=(),
                batch_size=4096,
            )
        },
        steps=400,
    )
    untouched = chz.replace(tuned, steps=1, optimizer=Optimizer(lr=1e-9))
    rows = {"as_it_came": untouched, "tuned": tuned, "scratch": scratch}
    return Pipeline(
        stages={
            "encoder": Train(experiment=another_shop()),
            **{name: Train(experiment=experiment) for name, experiment in rows.items()},
            "supervised": Train(experiment=supervised),
            "gain": Compare(
                title="What tuning on the catalogue buys videos that nobody has watched",
                rows={name.replace("_", " "): f"@{name}" for name in rows},
                metrics=("space/item-video/recall@1", "space/query-video/recall@1", "people/new/recall@20"),
            ),
            "bias": Compare(
                title="Videos ranked by a log of who finished what, and by content",
                rows={"supervised": "@supervised", "content": "@tuned"},
                metrics=(
                    "replay/logged/auc",
                    "replay/deep_view",
                    "replay/new/deep_view",
                    "replay/short_share",
                    "replay/seconds_correlation",
                ),
            ),
        }
    )


def another_shop() -> Experiment:
    """Trained as the image-text model is, on the products and words of ELSEWHERE."""
    return chz.replace(image_text_mall.plain(), source=MallPairs(mall=ELSEWHERE), evals={})


def catalogue(mall: Mall) -> Experiment:
    """Trained on the shop's pictures and titles."""
    base = image_text_mall.plain()
    return Experiment(
        model=ShortVideo(),
        task=VideoContrastive(label="spu"),
        source=MallTriples(mall=mall),
        loader=chz.replace(base.loader, batch_size=128),
        optimizer=Optimizer(algorithm="adamw", lr=1e-3, warmup_steps=20, lr_schedule="cosine", weight_decay=0.01),
        evals={
            "space": Space(
                source=MallTriples(mall=mall, split="test"),
                seen=MallTriples(mall=mall, split="seen"),
                target="spu",
                key="spu",
                metrics=(Recall(ks=(1, 10)), MedianRank()),
                domains=("item", "video", "query"),
                batch_size=128,
            ),
            "people": RecommendVideos(
                source=MallShoppers(mall=mall),
                items=MallProducts(mall=mall, views=("image",)),
                videos=MallProducts(mall=mall, views=("video",)),
                clicks=MallShoppers(mall=mall, split="train", history=1, most=None),
                metrics=(Recall(ks=(20,)), MRR()),
                slices={"new": Slice(feature="is_cold", equals=1)},
                batch_size=256,
            ),
            "replay": ReplayByContent(
                source=MallShoppers(mall=mall, most=None),
                items=MallProducts(mall=mall, views=("image",)),
                videos=MallProducts(mall=mall, views=("video",)),
                mall=mall,
                logged=MallWatches(mall=mall, split="valid"),
                metrics=(),
                batch_size=256,
            ),
        },
        steps=120,
    )
