"""SASRec on MovieLens-1M (5-core, last 100 ratings): the next film, by the softmax over all films.

ADLOOM_DATA=... python -m train configs/sasrec_ml1m.py --workdir runs/sasrec_ml1m

Leave-last-two, as configs/sasrec_beauty.py; full ranking of 3,416 films, the history left out.
"""

from configs.sequences import movies
from train.experiment import Experiment


def get_config() -> Experiment:
    return movies()
