"""What the vectors of content encoders buy DIN on the mall's clicks, each in a tower of its own, beside ids alone.

python -m train configs/content_buys_mall.py --workdir runs/content_buys
python -m train configs/content_buys_mall.py --workdir runs/moon_buys --only ids,moon

"pair" learns from pictures and titles alone, "interbert" from which belong together; "esspr" from clicked photo
searches and "moon" from all searches; "composed" from words that change a picture; "short_video" is tuned on pictures
and titles and reads each listing's video; "in_out" knows which ids were bought together, and nothing of content.
COPE, MIM and VED have pipelines of their own: `cope_buys_mall`, `mim_mall`, `ved_mall`.
Figures: docs/embeddings.md.
"""

from configs import (
    composed_mall,
    esspr_mall,
    image_text_mall,
    in_out_mall,
    interbert_mall,
    moon_mall,
    short_video_mall,
)
from configs.what_it_buys import Encoder, what_they_buy
from data.mall.config import Mall
from data.mall.searches import MallCatalogue
from data.mall.sources import MallProducts
from data.mall.triples import MallVideos
from train.pipeline import Pipeline


def get_config() -> Pipeline:
    mall = Mall()
    return what_they_buy(
        {
            "pair": Encoder(image_text_mall.plain()),
            "interbert": Encoder(interbert_mall.get_config(), vectors=("text", "image")),
            "esspr": Encoder(esspr_mall.get_config(), vectors=("both",)),
            "moon": Encoder(moon_mall.get_config(), items=MallCatalogue(mall=mall, split="all")),
            "composed": Encoder(composed_mall.get_config()),
            "short_video": Encoder(
                short_video_mall.catalogue(mall),
                vectors=("video",),
                items=MallVideos(mall=mall),
                start=short_video_mall.another_shop(),
            ),
            "in_out": Encoder(in_out_mall.baskets(mall), items=MallProducts(mall=mall, views=())),
        }
    )
