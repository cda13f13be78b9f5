"""The views of a listing as features: what each is declared as, and how its rows are rendered."""

from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from data.features import FIRST, Categorical, Feature, Image, Sequence, Text
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import uniforms
from data.mall.views import speech as spoken
from data.mall.views.image import SIDE, images
from data.mall.views.text import DESCRIPTION, attribute_table, descriptions
from data.mall.views.title import LENGTH, titles
from data.mall.views.video import FRAMES, lives, videos
from data.mall.views.words import lexicon

View = Literal["image", "title", "description", "attributes", "video", "live", "speech"]
VIEWS: tuple[View, ...] = get_args(View)


KEEP = 20_000  # listings whose page images are kept once drawn: 60 MB


@lru_cache(maxsize=2)
def _all_images(mall: Mall) -> np.ndarray:
    """Drawing a batch takes longer than a small model's step, so a small mall is drawn once."""
    shop = shop_of(mall)
    return images(mall, shop=shop, items=np.arange(len(shop)))


def view_features(mall: Mall, *, views: tuple[View, ...]) -> tuple[Feature, ...]:
    picture = Image(name="frame", role="item", height=SIDE, width=SIDE)
    tokens = lexicon(mall).tokens
    declared = {
        "image": (Image(name="image", role="item", height=SIDE, width=SIDE),),
        "title": (Text(name="title", role="item", tokens=tokens, length=LENGTH),),
        "description": (Text(name="description", role="item", tokens=tokens, length=DESCRIPTION),),
        "attributes": tuple(Categorical(name=n, role="item", rows=FIRST + v) for n, v in ATTRIBUTES.items()),
        "video": (Sequence(name="video", role="item", of=picture, length=FRAMES),),
        "live": (Sequence(name="live", role="item", of=picture, length=FRAMES),),
        "speech": (Text(name="speech", role="item", tokens=tokens, length=spoken.LENGTH),),
    }
    return tuple(f for view in views for f in declared[view])


def view_columns(mall: Mall, *, shop: Catalogue, items: np.ndarray, views: tuple[View, ...]) -> dict[str, np.ndarray]:
    """Rendered on demand, so that a mall need not hold its pictures."""
    out: dict[str, np.ndarray] = {}
    if "image" in views:
        out["image"] = _all_images(mall)[items] if len(shop) <= KEEP else images(mall, shop=shop, items=items)
        if mall.views.no_image:
            out["image"][uniforms(mall.seed, name="no image", ids=items, draws=1)[:, 0] < mall.views.no_image] = 0
    if "title" in views:
        out["title"], out["title/length"] = titles(mall, shop=shop, items=items)
    if "description" in views:
        out["description"], out["description/length"] = descriptions(mall, shop=shop, items=items)
    if "attributes" in views:
        stated = attribute_table(mall, shop=shop, items=items)
        out |= {name: np.where(stated[:, j] > 0, stated[:, j] + 1, 0) for j, name in enumerate(ATTRIBUTES)}
    for name, render in (("video", videos), ("live", lives)):
        if name in views:
            out[name], out[f"{name}/length"] = (
                render(mall, shop=shop, items=items)[0],
                np.full(len(items), FRAMES, np.int32),
            )
    if "speech" in views:
        out["speech"] = spoken.speech(mall, shop=shop, items=items)[0]
        out["speech/length"] = np.full(len(items), spoken.LENGTH, np.int32)
    return out
