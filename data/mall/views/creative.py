"""Ad creatives: the product staged in a template of its own, and a phrase about one selling point."""

import numpy as np

from data.mall.ads import CREATIVES, POINTS, Campaigns
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.rng import uniforms
from data.mall.views.image import SIDE, images
from data.mall.views.text import price_band
from data.mall.views.title import quality_level, squeeze
from data.mall.views.words import lexicon

PHRASE = 6


def phrases(mall: Mall, *, shop: Catalogue, ads: Campaigns, campaign: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, CREATIVES, PHRASE] tokens and lengths [n, CREATIVES]: (promo) selling point, what it is, the noun."""
    campaign = np.asarray(campaign)
    words, item = lexicon(mall), ads.item[campaign]
    spu = shop.spu[item]
    out = np.zeros((len(campaign), CREATIVES, PHRASE), np.int32)
    length = np.zeros((len(campaign), CREATIVES), np.int32)
    first = np.zeros(len(campaign), bool)
    for k in range(CREATIVES):
        u = uniforms(mall.seed, name=f"phrase {k}", ids=campaign, draws=8)
        point = ads.point[campaign, k]
        claims = np.stack(
            [
                words.pick("quality", value=quality_level(shop.spu_quality[spu]), second=first, u=u[:, 0]),
                words.pick("price", value=price_band(shop, items=item), second=first, u=u[:, 0]),
                words.pick("brand", value=shop.spu_brand[spu], second=first, u=u[:, 0]),
                *(
                    words.pick(name, value=shop.spu_attributes[spu, j], second=first, u=u[:, 0])
                    for j, name in enumerate(ATTRIBUTES)
                ),
            ],
            -1,
        )
        assert claims.shape[1] == len(POINTS)
        promo = words.pick("promo", value=(u[:, 2] * 4).astype(np.int64), second=first, u=u[:, 3])
        tokens = np.stack(
            [
                np.where(u[:, 1] < 0.4, promo, 0),
                words.pick("point", value=point, second=first, u=u[:, 4]),
                claims[np.arange(len(campaign)), point],
                words.pick("leaf", value=shop.leaf[item], second=first, u=u[:, 5]),
            ],
            -1,
        )
        out[:, k], length[:, k] = squeeze(tokens, length=PHRASE)
    return out, length


def creatives(mall: Mall, *, shop: Catalogue, ads: Campaigns, campaign: np.ndarray, side: int = SIDE) -> np.ndarray:
    """[n, CREATIVES, side, side, 3] uint8: craft shows as contrast and as an even frame."""
    campaign = np.asarray(campaign)
    base = images(mall, shop=shop, items=ads.item[campaign], side=side).astype(np.float32) / 255.0
    out = np.empty((len(campaign), CREATIVES, side, side, 3), np.uint8)
    edge = max(1, side // 12)
    for k in range(CREATIVES):
        u = uniforms(mall.seed, name=f"template {k}", ids=campaign, draws=6)
        craft = ads.craft[campaign, k][:, None, None, None]
        picture = 0.5 + (base - 0.5) * (0.85 + 0.5 * np.tanh(craft))
        frame = (0.25 + 0.7 * u[:, :3])[:, None, None, :]
        mask = np.zeros((side, side), bool)
        mask[:edge], mask[-edge:] = True, True
        # a button in the colour of the frame, with a bar for the phrase of this point
        mask[-3 * edge : -edge, edge : side // 2] = True
        picture = np.where(mask[None, :, :, None], frame, picture)
        bar = (ads.point[campaign, k] + 1) * (side // 2 - 2 * edge) // len(POINTS) + 1
        on = (np.arange(side)[None, :] >= edge + 1) & (np.arange(side)[None, :] < edge + 1 + bar[:, None])
        row = side - 2 * edge
        picture[:, row] = np.where(on[..., None], 1.0, picture[:, row])
        out[:, k] = np.clip(picture * 255.0, 0, 255).astype(np.uint8)
    return out
