"""ICSRec on Amazon 2014 Beauty (5-core): of each history its newest 20, 1,024 histories at a time.

The authors' settings are 50 items, batches of 256 and up to 300 passes; here are 26. No full run is recorded yet: a
half of one, on a busy core, stood at HR@10 .042 after 1,500 steps, where SASRec stands at .102 after 3,000 of its own.

ADLOOM_DATA=... python -m train configs/icsrec_beauty.py --workdir runs/icsrec_beauty
ADLOOM_DATA=... python -m train configs/icsrec_beauty.py --workdir runs/icsrec_beauty_control task.coarse=0 task.fine=0

Users and ranking as in configs/sasrec_beauty.py; every beginning of a history is a row.
"""

import chz

from configs import sasrec_beauty, sequences
from data.pipeline import Loader
from data.prefixes import Prefixes
from data.sequence_file import SequenceFile
from data.transforms.same_target import SameTarget
from modules.sequential.icsrec import ICSRec
from modules.sequential.sasrec import SASRec
from train.experiment import Experiment
from train.optim import Optimizer
from train.tasks.intent_contrast import IntentContrast


def get_config() -> Experiment:
    base = sasrec_beauty.get_config()
    source = SequenceFile(path=sasrec_beauty.PATH, max_len=20)
    return chz.replace(
        base,
        model=ICSRec(encoder=SASRec(norm="post", heads=2, expand=4, dropout=0.5)),
        task=IntentContrast(coarse=0.3, fine=0.1),
        source=Prefixes(of=source),
        loader=Loader(batch_size=1024, transforms=(SameTarget(),)),
        optimizer=Optimizer(lr=3e-3, warmup_steps=100, lr_schedule="cosine", final_scale=0.05),
        evals=sequences.ranking(sasrec_beauty.PATH, max_len=source.max_len, every=500),
        steps=3000,
    )
