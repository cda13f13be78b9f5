"""Listings that lack a picture or a title, completed by the listings most like them (the task of MMPCBench).

python -m train configs/completion_mall.py --workdir runs/completion
python -m train configs/completion_mall.py --workdir runs/completion_half ...missing=0.5    # of the generators too

An image-text encoder embeds the catalogue; the vector of the part that is there finds the neighbours whose other part
fills the gap. Beside it zeros, the mean of the catalogue, a captioner and a painter that generate from that vector, and
the truth. Figures: README, table of systems.
"""

from configs import image_text_mall
from data.mall.config import Mall
from data.mall.halves import Half, MallHalves
from data.mall.sources import MallProducts
from data.pipeline import Loader
from modules.base import ModelConfig
from modules.content.generator import Captioner, Painter
from serve.stages import Embed
from train.complete import Complete, Method
from train.experiment import Experiment
from train.optim import Optimizer
from train.pipeline import Compare, Pipeline, Train
from train.tasks.generate import Generate

METHODS: tuple[Method, ...] = ("zero", "mean", "retrieval", "generated", "truth")
VECTORS = "@items/vectors.npz"


def get_config() -> Pipeline:
    mall = Mall()
    return Pipeline(
        stages={
            "encoder": Train(experiment=image_text_mall.plain()),
            "items": Embed(of="@encoder", source=MallProducts(mall=mall), vectors=("item", "query")),
            "captioner": Train(experiment=generator(Captioner(), lacks="title", mall=mall)),
            "painter": Train(experiment=generator(Painter(), lacks="image", mall=mall)),
            **{
                m: Complete(of=VECTORS, mall=mall, method=m, captioner="@captioner", painter="@painter")
                if m == "generated"
                else Complete(of=VECTORS, mall=mall, method=m)
                for m in METHODS
            },
            "gain": Compare(
                title="Listings without a picture or a title, completed",
                rows={method: f"@{method}" for method in METHODS},
                metrics=("title/f1", "image/mse", "recall@20", "no_image/recall@20"),
            ),
        }
    )


def generator(model: ModelConfig, *, lacks: Half, mall: Mall) -> Experiment:
    return Experiment(
        model=model,
        task=Generate(),
        source=MallHalves(of=VECTORS, mall=mall, lacks=lacks),
        loader=Loader(batch_size=128),
        optimizer=Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=20, lr_schedule="cosine", weight_decay=0.01),
        steps=300,
    )
