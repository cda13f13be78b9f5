"""OptInter on the mall's clicks: search how each pair of fields interacts, then train what was found from scratch.

    python -m train configs/optinter_mall.py --workdir runs/optinter

search -> each pair's method -> retrained, beside all pairs memorized. α learns from the rows of each batch that nothing
else learns from: on training rows a memorized pair always wins. `python -m train ... --workdir runs/naive
stages.memorize.experiment.model.choice=naive` measures another fixed choice in place of memorizing.
Figures: README, table of systems.
"""

import chz

from configs.common import click_experiment
from modules.ctr.optinter import OptInter
from modules.layers.mlp import MLP
from train.choose import ChooseInteractions
from train.experiment import Experiment
from train.held_out import HeldOut
from train.pipeline import Compare, Pipeline, Train

STEPS = 600


def get_config() -> Pipeline:
    model = OptInter(cooling=1.0 / STEPS, cross_rows=1 << 14, mlp=MLP(widths=(200, 80), norm="layer"))

    def experiment(**fields) -> Experiment:
        base = click_experiment(chz.replace(model, **fields), steps=STEPS)
        # A cross table of all pairs is large, and a batch reads little of it.
        return chz.replace(base, optimizer=chz.replace(base.optimizer, rows=(r"(^|/)table(_\d+)?$",)))

    search = experiment()
    search = chz.replace(
        search,
        optimizer=chz.replace(search.optimizer, lr_scale=((r"^alpha$", 10.0),)),
        held_out=HeldOut(params=r"^alpha$"),
    )
    return Pipeline(
        stages={
            "search": Train(experiment=search),
            "choose": ChooseInteractions(of="@search"),
            "retrained": Train(experiment=experiment(assignment="@choose/assignment.json")),
            "memorize": Train(experiment=experiment(choice="memorize")),
            "gain": Compare(
                title="What choosing among interactions bought over memorizing them all",
                rows={"memorize all": "@memorize", "searched": "@retrained"},
                metrics=("valid/auc", "valid/gauc", "valid/logloss"),
            ),
        }
    )
