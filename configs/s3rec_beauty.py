"""S3-Rec on Amazon 2014 Beauty (5-core): the encoder first learns what belongs together, categories of items included.

ADLOOM_DATA=... python -m train configs/s3rec_beauty.py --workdir runs/s3rec_beauty

"scratch" is configs/sasrec_beauty.py, "tuned" the same from the pre-trained encoder. Attributes are three levels of an
item's category; the brand, the paper's other attribute, is in no column here. The paper pre-trains for 100 passes, here
are 17.
Figures: docs/sequences.md.
"""

from configs import sasrec_beauty
from configs.s3rec_mall import against_scratch
from data.pipeline import Buckets, Loader
from data.sequence_attributes import SequenceAttributes
from modules.sequential.s3rec import S3Rec
from train.experiment import Experiment
from train.optim import Optimizer
from train.pipeline import Pipeline
from train.tasks.s3_pretraining import S3Pretraining


def get_config() -> Pipeline:
    source = SequenceAttributes(path=sasrec_beauty.PATH)
    pretraining = Experiment(
        model=S3Rec(attributes=source.names, dropout=0.5),
        task=S3Pretraining(),
        source=source,
        loader=Loader(batch_size=256, buckets=Buckets(widths=(5, 10, 20))),
        optimizer=Optimizer(lr=1e-3),
        steps=1500,
    )
    return against_scratch(pretraining, scratch=sasrec_beauty.get_config(), part="valid")
