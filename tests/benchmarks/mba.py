"""Does mini-batch aware L2 keep rare ids from overfitting, and what does it cost beside L2 of the whole table?

    python -m tests.benchmarks.mba [--json FILE]

2 x 10^5 training rows of 10^5 items under Zipf's law, each with an effect of its own that most are too rare to show. A
DNN is trained by Adam without regularisation, with `row_rule.mini_batch_aware` (both row-sparse), and with
`optimizer.l2` over the whole table (dense). Test AUC after each epoch, mean of the seeds; the steps are timed in turns.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import chz
import jax
import numpy as np

from data.features import Categorical, Features, Label, Numeric
from data.pipeline import Loader
from data.sources import InMemory, SourceConfig
from modules.ctr.dnn import DNN
from modules.layers.mlp import MLP
from train.experiment import Experiment
from train.metrics.auc import AUC
from train.optim import Optimizer
from train.program import Program, make_predict
from train.row_counts import count_rows
from train.rowwise import LazyAdam
from train.sharding import Mesh, put_batch
from train.tasks.pointwise import Pointwise

IDS, ROWS, TEST, BATCH, EPOCHS = 100_000, 200_000, 50_000, 512, 3
LR = 1e-2  # high, so that three epochs are enough to overfit
FEATURES = Features(
    all=(Categorical(name="item", rows=IDS + 2), Numeric(name="a"), Numeric(name="b"), Label(name="click"))
)


@chz.chz
class Zipf(SourceConfig):
    rows: int = ROWS
    seed: int = 0

    def make(self) -> InMemory:
        law = 1 / np.arange(1, IDS + 1)
        effects = np.random.default_rng(99).normal(size=IDS)
        rng = np.random.default_rng(self.seed)
        item = rng.choice(IDS, size=self.rows, p=law / law.sum())
        a, b = rng.normal(size=(2, self.rows)).astype(np.float32)
        logit = 0.8 * effects[item] + 0.8 * a * b + 0.4 * a
        click = rng.random(self.rows) < 1 / (1 + np.exp(-logit))
        return InMemory({"item": item + 2, "a": a, "b": b, "click": click}, features=FEATURES)


def optimizers(mba: float, l2: float) -> dict[str, Optimizer]:
    rows = ("embed/table",)
    return {
        "none": Optimizer(lr=LR, rows=rows),
        "mini-batch aware": Optimizer(lr=LR, rows=rows, row_rule=LazyAdam(mini_batch_aware=mba)),
        "whole table": Optimizer(lr=LR, l2=(("embed/table", l2),)),
    }


class Run:
    """A model under one optimizer, from one seed."""

    def __init__(self, optimizer: Optimizer, *, seed: int):
        self.experiment = Experiment(
            model=DNN(dim=8, mlp=MLP(widths=(64, 32))),
            task=Pointwise(),
            source=Zipf(seed=seed),
            loader=Loader(batch_size=BATCH, seed=seed),
            optimizer=optimizer,
        )
        self.mesh = Mesh().make(devices=jax.devices()[:1])
        self.source = self.experiment.source.make()
        self.batches = self.experiment.loader.open(self.source)
        self.program = Program(self.experiment, features=FEATURES, mesh=self.mesh)
        self.test = Zipf(rows=TEST, seed=1_000 + seed).make()
        with jax.set_mesh(self.mesh):
            self.state = self.program.init(seed)
            if self.program.counts_rows:
                counts = count_rows(self.program, loader=self.experiment.loader, source=self.source, say=quiet)
                self.state = self.program.with_occurrences(self.state, counts)

    def steps(self, count: int) -> float:
        """Microseconds of one step, its batch included."""
        with jax.set_mesh(self.mesh):
            begun = time.perf_counter()
            for _ in range(count):
                self.state, logs = self.program.train_step(self.state, put_batch(next(self.batches), mesh=self.mesh))
            jax.block_until_ready((self.state, logs))
            return (time.perf_counter() - begun) / count * 1e6

    def auc(self) -> float:
        rows = self.test.take(np.arange(TEST))
        with jax.set_mesh(self.mesh):
            scores = make_predict(self.program, self.program.weights(self.state))(rows)
        metric = AUC().make()
        metric.update(scores, rows)
        return metric.compute()["auc"]


def quiet(line: str) -> None:
    """No lines of the counting."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mba", type=float, default=3.0, help="lambda of mini-batch aware L2")
    parser.add_argument("--l2", type=float, default=1e-4, help="lambda of whole-table L2")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()

    chosen = optimizers(args.mba, args.l2)
    curves: dict[str, list[list[float]]] = {name: [] for name in chosen}
    for seed in range(args.seeds):
        for name, optimizer in chosen.items():
            run, curve = Run(optimizer, seed=seed), []
            for _ in range(EPOCHS):
                run.steps(ROWS // BATCH)
                curve.append(run.auc())
            curves[name].append(curve)
            print(f"seed {seed} {name:<18}" + "".join(f"{auc:8.4f}" for auc in curve), flush=True)
    runs = {name: Run(optimizer, seed=0) for name, optimizer in chosen.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(args.rounds + 1):
        for name, run in runs.items():
            figure = run.steps(10)
            if round_:
                times[name].append(figure)
    ratio = [d / m for d, m in zip(times["whole table"], times["mini-batch aware"], strict=True)]
    result = {
        "benchmark": "mba",
        "ids": IDS,
        "rows": ROWS,
        "batch": BATCH,
        "seeds": args.seeds,
        "lambda": {"mini-batch aware": args.mba, "whole table": args.l2},
        "auc_by_epoch": {n: [round(float(np.mean(e)), 4) for e in zip(*c, strict=True)] for n, c in curves.items()},
        "drop_from_best_epoch": {n: round(float(np.mean([max(x) - x[-1] for x in c])), 4) for n, c in curves.items()},
        "step_us": {name: round(statistics.median(figures), 1) for name, figures in times.items()},
        "whole_table_over_mini_batch_aware": round(statistics.median(ratio), 2),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
