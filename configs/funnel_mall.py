"""The served funnel on the mall: two towers, pictures and popularity find, DIN ranks, caps and an auction decide.

    python -m train configs/funnel_mall.py --workdir runs/funnel
    python -m serve up runs/funnel/funnel/funnel      # and its page, which also searches by words and pictures
    python -m serve rank runs/funnel/funnel/funnel --requests requests.parquet --output pages.parquet --explain

Its last stage replays requests of the test days: NDCG@10 and revenue against the same ranker over all listings.
Figures: docs/funnel.md.
"""

from configs import image_text_mall
from configs.common import click_experiment
from configs.two_tower_mall import two_tower
from data.features import FIRST
from data.mall.config import Mall
from data.mall.display import MallDisplay
from data.mall.serving import ALL, MallListings, MallLists, MallRequests
from data.mall.sources import MallProducts
from modules.behavior.din import DIN
from serve.decide.auction import Auction
from serve.decide.rules import Cap, Decide, Diversity
from serve.funnel_config import ByContent, ByItem, ByList, ByTower, Display, Elapsed, FunnelConfig
from serve.funnel_stages import ExportVectors, Features, Funnel, Replay, Table, Words
from serve.stages import Embed, Export, Index
from train.calibrate import Calibrate
from train.experiment import Experiment
from train.pipeline import Pipeline, Stage, Train

LISTINGS, VECTORS = "@listings/table.parquet", "vectors.parquet"


def get_config() -> Pipeline:
    return funnel(
        mall=Mall(), two_tower=two_tower(Mall()), encoder=image_text_mall.plain(), tower=click_experiment(DIN())
    )


def funnel(*, mall: Mall, two_tower: Experiment, encoder: Experiment, tower: Experiment) -> Pipeline:
    stages: dict[str, Stage] = {
        "two_tower": Train(experiment=two_tower),
        "encoder": Train(experiment=encoder),
        "tower": Train(experiment=tower),
        "listings": Table(table=MallListings(mall=mall)),
        "lists": Table(table=MallLists(mall=mall)),
        "query": ExportVectors(of="@two_tower"),
        "items": Embed(of="@two_tower", source=MallProducts(mall=mall, views=()), name=VECTORS),
        "index": Index(of=f"@items/{VECTORS}", attributes=LISTINGS, id="item"),
        "content": Embed(of="@encoder", source=MallProducts(mall=mall), name=VECTORS, vectors=("item", "query")),
        "content_index": Index(of=f"@content/{VECTORS}", metric="cosine", attributes=LISTINGS, id="item"),
        "content_store": Features(of=f"@content/{VECTORS}", id="id"),
        "by_words": ExportVectors(of="@encoder", vectors=("query", "query")),
        "by_picture": ExportVectors(of="@encoder", vectors=("item", "item")),
        "words": Words(mall=mall),
        "features": Features(of=LISTINGS),
        "pictures": Table(table=MallDisplay(mall=mall)),
        "display": Features(of="@pictures/table.parquet"),
        "popular": Features(of="@lists/table.parquet", id="category"),
        "calibrated": Calibrate(of="@tower"),
        "ranker": Export(of="@tower", request=True),
        "funnel": Funnel(config=config(), examples=MallRequests(mall=mall, history=50, most=12)),
        "replay": Replay(of="@funnel/funnel", mall=mall),
    }
    return Pipeline(stages=stages)


def config() -> FunnelConfig:
    return FunnelConfig(
        channels={
            "two_tower": ByTower(index="@index/index", tower="@query", quota=400),
            "looks": ByItem(index="@content_index/index", vectors="@content_store/features", last=3, quota=100),
            "popular": ByList(lists="@popular/features", key="query", default=ALL, quota=100),
            "search": ByContent(
                index="@content_index/index",
                text="@by_words",
                picture="@by_picture",
                tokenizer="@words/tokenizer.json",
                quota=100,
            ),
        },
        ranker="@ranker",
        features="@features/features",
        calibration="@calibrated/calibration.json",
        decide=Decide(
            caps=(Cap(by="seller", most=3),),
            diversity=Diversity(by="category", weight=0.95),
            auction=Auction(bid="bid", reserve=0.01),
        ),
        derived=(Elapsed(name="item_age", since="arrival", most=28.0),),
        defaults={"position": FIRST},
        display=Display(
            store="@display/features",
            title="title",
            image="image",
            columns=("category", "price", "seller"),
            filters=("category", "price"),
        ),
    )
