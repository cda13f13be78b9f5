"""A mixture on MovieLens-1M (5-core): SASRec, a linear next-item model in closed form, and transition counts.

ADLOOM_DATA=... python -m train configs/mixture_ml1m.py --workdir runs/mixture_ml1m
python -m serve recommend runs/mixture_ml1m/final --k 20 --output top20.txt

As configs/mixture_beauty.py. Figures: docs/sequences.md.
"""

from configs.sequences import folder, mixture, movie_relations, movies
from train.pipeline import Pipeline


def get_config() -> Pipeline:
    path = folder("ml-1m-sas")
    return mixture(path, parts={"encoder": movies()}, relations=movie_relations(), max_len=100)
