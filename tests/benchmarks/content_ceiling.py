"""How much AUC can content add on the mall? For one who knows all users, and items by their ids or by their views.

    python -m tests.benchmarks.content_ceiling [--json FILE] [taste.style=4 ...]

Scores the test period by the click law with what is known of an item: "ids" its category, brand, price and successors,
"content" also its style, appeal, quality and attributes, which pictures and words show. "ids" takes the mean style of
the brand, "no brand" none. Nobody knows an item's luck. A tower that has to learn the users from a log may gain more by
content than this ideal reader, or less. Half a minute.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from data.mall.build import build
from data.mall.exposure import click_probability
from data.mall.latents import ATTRIBUTES
from data.mall.options import mall_of
from data.mall.truth import auc
from data.mall.users import users

TAIL = 10


def ceilings(mall) -> dict[str, dict[str, float]]:
    """AUC by slice and by what is known."""
    built, taste = build(mall), mall.taste
    shop, shown = built.shop, built.log.impressions
    blocks = [users(mall, shop=shop, shard=s) for s in range(mall.shards)]
    leaf, wish, favourite = (np.concatenate([getattr(b, n) for b in blocks]) for n in ("leaf", "wish", "favourite"))
    row = {name: column[shown["time"] >= mall.period("test")[0]] for name, column in shown.items()}
    item, user, spu = row["item"], row["user"], shop.spu[row["item"]]
    wanted = leaf[user] == shop.leaf[item][:, None]

    def agreement(style: np.ndarray) -> np.ndarray:
        each = np.einsum("nd,nkd->nk", style, wish[user])
        return (each * wanted).sum(1) / np.maximum(wanted.sum(1), 1)

    of_brand = np.zeros((mall.dims.brands, shop.spu_style.shape[1]))
    for brand in np.unique(shop.spu_brand):
        of_brand[brand] = shop.spu_style[shop.spu_brand == brand].mean(0)
    relevance = row["relevance"].astype(np.float64)
    logit = np.log(relevance / (1 - relevance)) - taste.luck * shop.luck[item]
    style = taste.style * agreement(shop.spu_style[spu])
    liked = (shop.spu_attributes[spu] == favourite[user]).sum(1) - sum(1 / v for v in ATTRIBUTES.values())
    seen = taste.appeal * shop.spu_appeal[spu] + taste.quality * shop.spu_quality[spu] + taste.attributes * liked
    known = {
        "no brand": logit - style - seen,
        "ids": logit - style - seen + taste.style * agreement(of_brand[shop.spu_brand[spu]]),
        "content": logit,
    }
    end = mall.period("train")[1]
    clicked = shown["item"][shown["click"] & (shown["time"] < end)]
    clicks, cold = np.bincount(clicked, minlength=mall.n_items)[item], shop.arrival[item] >= end
    slices = {"all": np.ones(len(item), bool), "cold": cold, "tail": ~cold & (clicks < TAIL)}
    scores = {
        name: click_probability(mall.exposure, relevance=1 / (1 + np.exp(-value)), slots=row["slot"])
        for name, value in known.items()
    }
    return {
        where: {name: auc(row["click"][rows], score=score[rows]) for name, score in scores.items()}
        for where, rows in slices.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("options", nargs="*", help="of the mall")
    arguments = parser.parse_args()
    found = ceilings(mall_of(arguments.options))
    for where, figures in found.items():
        gain = figures["content"] - figures["ids"]
        print(f"{where:<5}", "  ".join(f"{n} {v:.4f}" for n, v in figures.items()), f" content over ids {gain:+.4f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
