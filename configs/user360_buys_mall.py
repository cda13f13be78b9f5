"""What 360's vectors of people buy DIN on the mall: people whom the shop does not know, but other products do.

python -m train configs/user360_buys_mall.py --workdir runs/user360_buys

360's encoder learns from the training days of all products, of people who are no guests. Its vector of each person at
each request, from what was done before it in all products, is computed once and read by DIN as one more field. "guests"
are people who are in no training row of either (one in eight): the shop knows five actions of theirs, and 360's vector
none of the shop, but searches and videos. Rows, slices and id dropout are those of `learn_buys_mall`.
Figures: docs/people.md.
"""

import chz

from configs import user360_mall
from configs.learn_buys_mall import click_stage, vectors_buy
from data.mall.config import Mall
from data.mall.global_users import MallGlobalUsers
from data.mall.global_visits import MallGlobalVisits
from modules.behavior.din import DIN
from serve.stages import Embed
from train.pipeline import Pipeline, Train

PEOPLE = "@people/vectors"


def get_config() -> Pipeline:
    people = MallGlobalUsers(mall=Mall(), guests=False)
    encoder = chz.replace(user360_mall.get_config(), source=people, evals={}, steps=600)
    rows = {
        "ids": click_stage(DIN(product=True), items=None, people=None),
        "vectors": click_stage(DIN(product=True), items=None, people=PEOPLE),
    }
    visits = MallGlobalVisits(people=people)
    return vectors_buy(
        rows,
        encoder={
            "user360": Train(experiment=encoder),
            "people": Embed(of="@user360", source=visits, name="vectors", id="visit", vectors=("user",)),
        },
    )
