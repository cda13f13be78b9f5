"""Pictures and titles of the mall's products in one space: CLIP's softmax, or SigLIP's sigmoid by two words.

python -m train configs/image_text_mall.py --workdir runs/image_text
python -m train configs/image_text_mall.py --workdir runs/siglip task.objective=sigmoid model.bias=-10.0

Negatives are the global batch, on however many devices; task.chunk=64 keeps the logits of 64 at a time. Listings of
one product are no negatives of each other. Evaluated on products that no training pair shows: by retrieval, by the
names of their classes, by linear probes of few examples, by the shape of the space. The report shows neighbours.
Figures: README, table of systems.
"""

import chz

from configs.content_evals import picture_and_title
from data.mall.config import Mall
from data.mall.sources import MallPairs, Split
from data.pipeline import Loader
from modules.content.image_text import ImageText
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MedianRank, Recall
from train.optim import Optimizer
from train.tasks.contrastive import Contrastive


def get_config() -> Experiment:
    encoder = plain()
    return chz.replace(encoder, evals={**encoder.evals, **picture_and_title(Mall())})


def plain() -> Experiment:
    """With retrieval alone to measure: for pipelines that go on with the encoder."""
    mall = Mall()

    def retrieval(split: Split) -> Retrieve:
        return Retrieve(
            source=MallPairs(mall=mall, split=split),
            target="spu",
            key="spu",
            metrics=(Recall(ks=(1, 10)), MedianRank()),
            reverse=True,
        )

    return Experiment(
        model=ImageText(),
        task=Contrastive(label="spu"),
        source=MallPairs(mall=mall),
        loader=Loader(batch_size=256),
        optimizer=Optimizer(algorithm="adamw", lr=2e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01),
        evals={"valid": retrieval("valid"), "test": retrieval("test")},
        steps=300,
    )
