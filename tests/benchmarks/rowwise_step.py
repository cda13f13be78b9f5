"""Does a row-sparse step cost the same for a large table? One DNN train step at 10 thousand and at 10 million rows.

    python -m tests.benchmarks.rowwise_step [--json FILE] [--rows N] [--rule LazyAdam|RowwiseAdagrad|regularised]

The steps take turns, round by round, on the same batches, whose ids lie below the small table's size; `spread` draws
the large table's ids from all of it, so that memory is read at random as well.
"""

import argparse
import json
import re
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from data.features import Categorical, Features, Label
from data.pipeline import Loader
from data.sources import SourceConfig
from modules.ctr.dnn import DNN
from train.experiment import Experiment
from train.optim import Optimizer
from train.program import Program
from train.rowwise import LazyAdam, RowRule, RowwiseAdagrad
from train.sharding import Mesh, put_batch
from train.tasks.pointwise import Pointwise

FIELDS, BATCH, SMALL = 16, 1024, 10_000
RULES: dict[str, RowRule] = {
    "LazyAdam": LazyAdam(),
    "RowwiseAdagrad": RowwiseAdagrad(),
    "regularised": LazyAdam(decay=0.01, mini_batch_aware=0.1),
}


class Run:
    """A program on a table of so many rows, its state, and its batches."""

    def __init__(self, *, rows: int, rule: RowRule):
        size = rows // FIELDS
        fields = [Categorical(name=f"field_{i}", rows=size) for i in range(FIELDS)]
        experiment = Experiment(
            model=DNN(dim=16),
            task=Pointwise(),
            source=SourceConfig(),
            loader=Loader(batch_size=BATCH),
            optimizer=Optimizer(rows=(r"embed/table_\d+$",), row_rule=rule, clip_norm=10.0),
        )
        self.mesh = Mesh().make(devices=jax.devices()[:1])
        features = Features(all=(*fields, Label(name="click")))
        self.program = Program(experiment, features=features, mesh=self.mesh)
        with jax.set_mesh(self.mesh):
            self.state = self.program.init(0)
            self.batches = {"near": self._batches(SMALL), "spread": self._batches(rows)}
            jax.block_until_ready(self.state)

    def _batches(self, ids_below: int) -> list[dict[str, jax.Array]]:
        rng, batches = np.random.default_rng(0), []
        for _ in range(8):
            ids = rng.integers(0, ids_below // FIELDS, (FIELDS, BATCH), dtype=np.int32)
            click = rng.integers(0, 2, BATCH).astype(np.float32)
            batch = {**{f"field_{i}": ids[i] for i in range(FIELDS)}, "click": click}
            batches.append(put_batch(batch, mesh=self.mesh))
        return batches

    def steps(self, count: int, *, batches: str = "near") -> float:
        """Microseconds of one step."""
        with jax.set_mesh(self.mesh):
            begun = time.perf_counter()
            for i in range(count):
                self.state, logs = self.program.train_step(self.state, self.batches[batches][i % 8])
            jax.block_until_ready((self.state, logs))
            return (time.perf_counter() - begun) / count * 1e6

    def compiled(self) -> tuple[int, int]:
        """Copies of whole tables or slots in the compiled step, and its scratch memory in bytes."""
        with jax.set_mesh(self.mesh):
            step = jax.jit(self.program._step, donate_argnums=0).lower(self.state, self.batches["near"][0]).compile()
        table = next(iter(self.state["rows"].values()))["owner"].shape[0]
        copies = re.findall(rf"= \w+\[{table}[,\]]\S* copy\(", step.as_text())
        return len(copies), step.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the large table")
    parser.add_argument("--rule", choices=RULES, default="LazyAdam")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()

    small, large = Run(rows=SMALL, rule=RULES[args.rule]), Run(rows=args.rows, rule=RULES[args.rule])
    times: dict[str, list[float]] = {"small": [], "large": [], "spread": []}
    for round_ in range(args.rounds + 2):
        figures = {"small": small.steps(10), "large": large.steps(10), "spread": large.steps(10, batches="spread")}
        for name, figure in figures.items():
            if round_ >= 2:
                times[name].append(figure)
    copies, scratch = large.compiled()
    result = {
        "benchmark": "rowwise_step",
        "rule": args.rule,
        "rows": [SMALL, args.rows],
        "batch": BATCH,
        "reads": BATCH * FIELDS,
        **{f"{name}_us": round(statistics.median(figures), 1) for name, figures in times.items()},
        "ratio": round(statistics.median(b / a for a, b in zip(times["small"], times["large"], strict=True)), 3),
        "ratio_spread": round(
            statistics.median(b / a for a, b in zip(times["small"], times["spread"], strict=True)), 3
        ),
        "table_copies": copies,
        "scratch_bytes": scratch,
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
