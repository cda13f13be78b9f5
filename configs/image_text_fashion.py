"""Product photos (60x80) and titles in one space, trained on 38,783 listings of Fashion Product Images (KAGL).

ADLOOM_DATA=... python -m train configs/image_text_fashion.py --workdir runs/image_text_fashion

CLIP's softmax; listings of one title are no negatives of each other, and count as one when retrieved. Validation is
the 2,847 listings of the split, whose 2,000 titles no training listing has.

"kagl" and "names" follow the public KAGL benchmark: 2,000 distinct titles, here those of the validation split, seek
their pictures among all listings, every listing of a title being an answer (1.42 a title, .90 is the most that recall@1
can be; there 1.39, .90); names of categories and colours seek listings by 0.9 of the picture's vector and 0.1 of the
title's. Here are 41,630 listings in place of 44,434, of 60x80 pixels, and all but the answers are trained on: say so
beside a comparison. The benchmark's MRR is that of the first ten, mrr@10 here.
"""

import chz

from data.packed_classes import PackedClasses, PackedPrompts
from data.packed_images import PackedImages, Split
from data.pipeline import Loader
from modules.content.image_text import ImageText
from modules.encoders.vision import ConvNet
from train.class_names import ClassNames
from train.contact_sheet import ContactSheet
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MRR, MedianRank, Recall
from train.optim import Optimizer
from train.retrieve_every import RetrieveEvery
from train.tasks.contrastive import Contrastive

FOLDER = "$ADLOOM_DATA/fashion"


def get_config() -> Experiment:
    return experiment()


def experiment(
    *, tokenizer: str | None = None, vectors: str | None = None, picture_vectors: str | None = None
) -> Experiment:
    """With the tokenizer, or the vectors of titles or pictures, of a published encoder."""

    def listings(split: Split, *, distinct: bool = False) -> PackedClasses:
        plain = PackedClasses(path=FOLDER, tokenizer=tokenizer, vectors=vectors, picture_vectors=picture_vectors)
        return chz.replace(plain, split=split, distinct=distinct)

    def pairs(split: Split) -> PackedImages:
        plain = PackedImages(path=FOLDER, tokenizer=tokenizer, vectors=vectors, picture_vectors=picture_vectors)
        return chz.replace(plain, split=split, pixels=picture_vectors is None)

    everything = listings("all")
    valid = Retrieve(
        source=pairs("val"),
        target="product",
        key="product",
        metrics=(Recall(ks=(1, 10)), MedianRank()),
        reverse=True,
    )
    return Experiment(
        model=ImageText(vision=ConvNet()),
        task=Contrastive(label="product"),
        source=pairs("train"),
        loader=Loader(batch_size=256),
        optimizer=Optimizer(algorithm="adamw", lr=1e-3, warmup_steps=30, lr_schedule="cosine", weight_decay=0.01),
        evals={
            "valid": valid,
            "kagl": RetrieveEvery(
                source=listings("val", distinct=True),
                corpus=everything,
                target="product",
                key="product",
                metrics=(Recall(ks=(1, 10)), MRR(ks=(10,))),
            ),
            "names": ClassNames(
                source=everything,
                prompts={name: PackedPrompts(path=FOLDER, tokenizer=tokenizer, of=name) for name in everything.classes},
                blend=0.1,
            ),
            "neighbours": ContactSheet(source=listings("val"), key="product"),
        },
        steps=1500,
    )
