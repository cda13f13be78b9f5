"""Listings that lack a picture or a title, completed by the listings most like them (the task of MMPCBench).

python -m train configs/completion_mall.py --workdir runs/completion
python -m train configs/completion_mall.py --workdir runs/completion_half ...missing=0.5

An image-text encoder embeds the catalogue; the vector of the part that is there finds the neighbours whose other part
fills the gap. Beside it zeros, the mean of the catalogue, and the truth. Figures: README, table of systems.
"""

from configs import image_text_mall
from data.mall.config import Mall
from data.mall.sources import MallProducts
from serve.stages import Embed
from train.complete import Complete, Method
from train.pipeline import Compare, Pipeline, Train

METHODS: tuple[Method, ...] = ("zero", "mean", "retrieval", "truth")


def get_config() -> Pipeline:
    mall = Mall()
    return Pipeline(
        stages={
            "encoder": Train(experiment=image_text_mall.plain()),
            "items": Embed(of="@encoder", source=MallProducts(mall=mall), vectors=("item", "query")),
            **{m: Complete(of="@items/vectors.npz", mall=mall, method=m) for m in METHODS},
            "gain": Compare(
                title="Listings without a picture or a title, completed",
                rows={method: f"@{method}" for method in METHODS},
                metrics=("title/f1", "image/mse", "recall@20", "no_image/recall@20"),
            ),
        }
    )
