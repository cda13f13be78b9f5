"""What COPE's page vectors buy DIN on the mall's clicks, above all on listings that nobody could click before.

python -m train configs/cope_buys_mall.py --workdir runs/cope_buys

The encoder learns from pages, videos and live streams alone, and never sees a click; four times as long as in
`cope_mall`, since vectors for a tower gain by that (docs/embeddings.md).
"""

import chz

from configs import cope_mall
from configs.what_it_buys import Encoder, what_it_buys
from train.pipeline import Pipeline


def get_config() -> Pipeline:
    return what_it_buys(Encoder(chz.replace(cope_mall.get_config(), steps=1000), vectors=("page",)))
