"""A mixture on Amazon 2014 Toys: SASRec that knows words, pairs of words, transition counts, and words alone.

ADLOOM_DATA=... python -m train configs/mixture_toys.py --workdir runs/mixture_toys
python -m serve recommend runs/mixture_toys/final --k 20 --output top20.txt

Parts are trained without validation targets; eleven weights are fitted on half of the users' validation targets and
judged on the other half. "final" learns anew from the whole file. The floors are among the figures of "encoder".
Figures: docs/sequences.md.
"""

from configs.sequences import amazon, amazon_relations, folder, mixture, word_pairs
from train.pipeline import Pipeline

NAME = "amazon14-toys"


def get_config() -> Pipeline:
    path = folder(NAME)
    parts = {"encoder": amazon(NAME), "pairs": word_pairs(path)}
    return mixture(path, parts=parts, relations=amazon_relations(), max_len=50)
