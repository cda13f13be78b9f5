"""SASRec on Amazon 2014 Beauty (5-core): the next product from a user's purchases, by the full softmax.

ADLOOM_DATA=... python -m train configs/sasrec_beauty.py --workdir runs/sasrec_beauty

Leave-last-two: the last item of the file is the validation target, the item before it the last training target, and
the test item is kept back. Full ranking of 12,101 items, the history left out, floors beside it. Leave-last-two leaks
time: other users may have bought later.
"""

from configs.sequences import folder, ranking
from data.pipeline import Buckets, Loader
from data.sequence_file import SequenceFile
from data.transforms.history import NextTargets
from modules.sequential.sasrec import SASRec
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.next_item import NextItem

PATH = folder("amazon14-beauty")


def get_config() -> Experiment:
    return Experiment(
        model=SASRec(dropout=0.5),
        task=NextItem(objective="softmax", chunk=10),
        source=SequenceFile(path=PATH),
        loader=Loader(batch_size=256, transforms=(NextTargets(target="target"),), buckets=Buckets(widths=(5, 10, 20))),
        optimizer=Optimizer(lr=1e-3, b2=0.98),
        evals=ranking(PATH, max_len=50, every=500),
        steps=3000,
    )
