"""Product photos (60x80) and titles in one space, trained on 38,783 listings of Fashion Product Images (KAGL).

ADLOOM_DATA=... python -m train configs/image_text_fashion.py --workdir runs/image_text_fashion

CLIP's softmax; listings of one title are no negatives of each other, and count as one when retrieved. Validation is
the 2,847 listings of the published split, some with a title that a training listing has: no zero-shot claim.
"""

from data.packed_images import PackedImages
from data.pipeline import Loader
from modules.content.image_text import ImageText
from modules.encoders.vision import ConvNet
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MedianRank, Recall
from train.optim import Optimizer
from train.tasks.contrastive import Contrastive


def get_config() -> Experiment:
    valid = Retrieve(
        source=PackedImages(path="$ADLOOM_DATA/fashion", split="val"),
        target="product",
        key="product",
        metrics=(Recall(ks=(1, 10)), MedianRank()),
        reverse=True,
    )
    return Experiment(
        model=ImageText(vision=ConvNet()),
        task=Contrastive(label="product"),
        source=PackedImages(path="$ADLOOM_DATA/fashion"),
        loader=Loader(batch_size=256),
        optimizer=Optimizer(algorithm="adamw", lr=1e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01),
        evals={"valid": valid},
        steps=1500,
    )
