"""How much AUC can content add on the mall? For one who knows all users, and items by their ids or by their views.

    python -m tests.benchmarks.content_ceiling [--json FILE] [taste.style=4 ...]
    python -m tests.benchmarks.content_ceiling --tower WORKDIR

Scores the test period by the click law with what is known of an item: "ids" its category, brand, price and successors,
"content" also its style, appeal, quality and attributes, which pictures and words show. "ids" takes the mean style of
the brand, "no brand" none. Nobody knows an item's luck. A tower that has to learn the users from a log may gain more by
content than this ideal reader, or less: with --tower, DIN of configs/what_it_buys.py is trained by ids alone and with
what "content" knows of an item as its vector, which no encoder can better; and DIN of configs/learn_buys_mall.py, of
whose people some are guests, with the same, with what there is to know of a person, and with both. Half a minute; a
quarter of an hour with --tower.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from configs import learn_buys_mall
from configs.what_it_buys import click_stage, gain
from data.features import FIRST
from data.mall.build import build
from data.mall.config import Mall
from data.mall.exposure import click_probability
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.options import mall_of
from data.mall.truth import auc
from data.mall.users import everyone, users
from modules.behavior.din import DIN
from modules.layers.embedding import Embedding
from train.pipeline import Pipeline, run_pipeline

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


def latents(shop: Catalogue) -> np.ndarray:
    """What there is to know of each listing but its luck: style, appeal, quality, attributes one by one."""
    spu = shop.spu
    each = [np.eye(n)[shop.spu_attributes[spu, k]] for k, n in enumerate(ATTRIBUTES.values())]
    known = (shop.spu_style[spu], shop.spu_appeal[spu, None], shop.spu_quality[spu, None], *each)
    return np.concatenate(known, axis=1).astype(np.float32)


def tastes(mall: Mall, *, shop: Catalogue) -> np.ndarray:
    """What there is to know of each person: interests by leaf, the style wished for there, favourites, price."""
    block = everyone(mall, shop=shop)
    leaves = np.zeros((len(block), shop.leaves))
    np.add.at(leaves, (np.arange(len(block))[:, None], block.leaf), block.before)
    each = [np.eye(n)[block.favourite[:, k]] for k, n in enumerate(ATTRIBUTES.values())]
    known = (leaves, block.wish.reshape(len(block), -1), *each, block.price[:, None], block.thrift[:, None])
    return np.concatenate(known, axis=1).astype(np.float32)


def towers(workdir: Path) -> None:
    mall = Mall()
    built = build(mall)
    workdir.mkdir(parents=True, exist_ok=True)
    items, people = workdir / "latents.npz", workdir / "tastes.npz"
    np.savez(items, id=FIRST + np.arange(len(built.shop)), vector=latents(built.shop))
    visitor = built.log.requests["user"]
    np.savez(people, id=FIRST + np.arange(len(visitor)), vector=tastes(mall, shop=built.shop)[visitor])
    rows = {"ids": click_stage(content=None), "latents": click_stage(content=str(items))}
    title = "What the latents themselves buy DIN: all rows, listings that arrived later, and the tail"
    run_pipeline(Pipeline(stages={**rows, "gain": gain(title, rows)}), workdir=workdir / "towers")
    din = DIN(product=True, embedding=Embedding(widths={"content": 32}))
    given = {"ids": (None, None), "listings": (items, None), "people": (None, people), "both": (items, people)}
    of_people = {
        name: learn_buys_mall.click_stage(
            din if vectors else DIN(product=True),
            items=str(vectors) if vectors else None,
            people=str(persons) if persons else None,
        )
        for name, (vectors, persons) in given.items()
    }
    run_pipeline(learn_buys_mall.vectors_buy(of_people, encoder={}), workdir=workdir / "guests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tower", type=Path, metavar="WORKDIR", help="train DIN on the default mall")
    parser.add_argument("options", nargs="*", help="of the mall")
    arguments = parser.parse_args()
    if arguments.tower is None:
        of_one_who_knows(arguments.options, file=arguments.json)
    elif arguments.json is not None or arguments.options:
        parser.error("--tower goes with no other option")
    else:
        towers(arguments.tower)


def of_one_who_knows(options: list[str], *, file: Path | None) -> None:
    found = ceilings(mall_of(options))
    for where, figures in found.items():
        more = figures["content"] - figures["ids"]
        print(f"{where:<5}", "  ".join(f"{n} {v:.4f}" for n, v in figures.items()), f" content over ids {more:+.4f}")
    if file is not None:
        file.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
