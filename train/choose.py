"""Between search and retraining: what a trained mixture of interactions decided."""

import json
from pathlib import Path

import chz
import jax.numpy as jnp

from data.errors import UserError
from modules.ctr.optinter import METHODS, OptInter, assignment_of, pairs_of
from modules.layers.crosses import lay_out
from train.experiment import load_experiment
from train.init_from import InitFrom
from train.pipeline import Results, Say, Stage


@chz.chz
class ChooseInteractions(Stage):
    """Each pair's method of largest α, of the search's best checkpoint, as `assignment.json`."""

    of: str = chz.field(doc="workdir of a search with OptInter, such as @search")

    def run(self, *, out: Path, say: Say) -> Results:
        experiment = load_experiment(Path(self.of))
        model = experiment.model
        if not isinstance(model, OptInter) or model.choice != "search" or model.assignment is not None:
            raise UserError(f"{self.of} is no search: train OptInter(choice='search') there, or name another stage")
        alpha = jnp.asarray(InitFrom(workdir=self.of).load()["params"]["alpha"])
        features = experiment.source.make().features
        pairs = pairs_of(features, fields=model.fields)
        chosen = assignment_of(alpha, pairs=pairs)
        (out / "assignment.json").write_text(json.dumps({"pairs": chosen}, indent=1) + "\n")
        counts: Results = {method: sum(m == method for m in chosen.values()) for method in METHODS}
        memorized = tuple(p for p, m in zip(pairs, chosen.values(), strict=True) if m == "memorize")
        rows, possible = (
            sum(c.rows for c in lay_out(p, features=features, rows=model.cross_rows)) for p in (memorized, pairs)
        )
        for name, method in chosen.items():
            say(f"{name}: {method}")
        say(f"{rows:,} of {possible:,} cross rows")
        return counts | {"cross_rows": rows, "cross_rows_of_all": possible, "cross_share": rows / possible}
