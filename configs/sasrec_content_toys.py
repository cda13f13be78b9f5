"""SASRec that knows its items' words, on Amazon 2014 Toys (5-core); the floors stand beside it.

ADLOOM_DATA=... python -m train configs/sasrec_content_toys.py --workdir runs/sasrec_content_toys
"""

from configs.sequences import amazon
from train.experiment import Experiment


def get_config() -> Experiment:
    return amazon("amazon14-toys")
