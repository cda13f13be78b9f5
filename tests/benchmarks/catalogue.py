"""What training a next-item model over a million items holds in memory.

    python -m tests.benchmarks.catalogue [--items 1000000] [--batch 256] [--length 50] [--steps 5] [--json FILE]

SASRec of width 64, Adam over the whole table, 2,048 negatives that a batch shares; with `--objective softmax` the full
softmax, one position of each row at a time. Peak is the highest resident size of the process, data and compilation
included; it says nothing of speed unless the machine is otherwise idle.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import chz
import jax
import numpy as np

from data.features import FIRST, Categorical, Features, Sequence
from data.pipeline import Loader
from data.sources import InMemory, SourceConfig
from data.transforms.history import NextTargets, UniformNegatives
from modules.sequential.sasrec import SASRec
from train.experiment import Experiment
from train.program import Program
from train.sharding import put_batch
from train.tasks.next_item import NextItem

NEGATIVES = 2048


@chz.chz
class Drawn(SourceConfig):
    """Full histories of items drawn alike."""

    items: int
    rows: int
    length: int

    def make(self) -> InMemory:
        inner = Categorical(name="item", rows=self.items + FIRST, role="user")
        features = Features(all=(Sequence(name="history", of=inner, length=self.length, role="user"),))
        history = np.random.default_rng(0).integers(FIRST, self.items + FIRST, (self.rows, self.length))
        return InMemory({"history": history, "history/length": np.full(self.rows, self.length)}, features=features)


def experiment(args: argparse.Namespace) -> Experiment:
    sampled = args.objective == "sampled_softmax"
    negatives = (UniformNegatives(count=-(-NEGATIVES // args.batch), shared=True),) if sampled else ()
    return Experiment(
        model=SASRec(),
        task=NextItem(objective=args.objective, pooled=sampled, chunk=None if sampled else 1),
        source=Drawn(items=args.items, rows=4 * args.batch, length=args.length),
        loader=Loader(batch_size=args.batch, transforms=(NextTargets(), *negatives)),
        steps=args.steps,
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(args: argparse.Namespace) -> dict:
    config = experiment(args)
    batches = config.loader.open(config.source.make())
    mesh = config.mesh.make(devices=jax.devices()[:1])
    before = peak_gb()
    with jax.set_mesh(mesh):
        program = Program(config, features=batches.features, mesh=mesh)
        state = program.init(0)
        seconds, losses = [], []
        for _ in range(args.steps):
            batch = put_batch(next(batches), mesh=mesh)
            begun = time.perf_counter()
            state, logs = program.train_step(state, batch)
            losses.append(float(logs["loss"]))
            seconds.append(time.perf_counter() - begun)
    batches.close()
    return {
        "items": args.items,
        "batch": args.batch,
        "length": args.length,
        "objective": args.objective,
        "peak_gb": round(peak_gb(), 2),
        "peak_gb_before_the_model": round(before, 2),
        "first_step_s": round(seconds[0], 2),
        "step_s": round(float(np.median(seconds[1:])), 2),
        "losses": [round(loss, 4) for loss in losses],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--objective", choices=("sampled_softmax", "softmax"), default="sampled_softmax")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    found = measure(args)
    print(json.dumps(found, indent=1))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
