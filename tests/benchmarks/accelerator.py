"""DIN on the device jax finds: rows/s, bandwidth and arithmetic with their shares of peak, the longest operations.

    python -m tests.benchmarks.accelerator [--batch 65536] [--peak-tflops 67] [--peak-gbs 4800] [--json FILE]

Bytes and operations are those that the compiler counts in the compiled train step, so `bandwidth` is what the program
asks for per second, and caches may serve part of it. The peaks are the maker's for the device and the precision.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.features import Categorical, Features, Label, Sequence
from data.pipeline import Loader
from data.sources import SourceConfig
from modules.behavior.din import DIN
from train.experiment import Experiment
from train.optim import Optimizer
from train.program import Program
from train.sharding import Mesh, put_batch
from train.tasks.pointwise import Pointwise

ITEMS, CATEGORIES, USERS, LENGTH = 1_000_000, 1_000, 1_000_000, 50
WAITS = ("ThunkExecutor", "Thread", "Wait", "wait", "Await", "end: ", "while", "call", "conditional")
"""Starts of events that are no operation, or the sum of others."""


def features() -> Features:
    histories = [
        Sequence(name=f"{name}_history", role="user", of=Categorical(name="of", rows=rows, share=name), length=LENGTH)
        for name, rows in (("item", ITEMS), ("category", CATEGORIES))
    ]
    return Features(
        all=(
            Categorical(name="user", role="user", rows=USERS),
            Categorical(name="item", role="item", rows=ITEMS),
            Categorical(name="category", role="item", rows=CATEGORIES),
            *histories,
            Label(name="click"),
        )
    )


def rows(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"user": USERS, "item": ITEMS, "category": CATEGORIES}
    batch = {name: rng.integers(2, size, count, dtype=np.int32) for name, size in sizes.items()}
    for name in ("item", "category"):
        batch[f"{name}_history"] = rng.integers(2, sizes[name], (count, LENGTH), dtype=np.int32)
        batch[f"{name}_history/length"] = np.full(count, LENGTH, np.int32)
    return batch | {"click": rng.integers(0, 2, count).astype(np.float32)}


class Steps:
    """The compiled train step on one device, and its state."""

    def __init__(self, *, batch: int, precision: str):
        mesh = Mesh().make(devices=jax.devices()[:1])
        experiment = Experiment(
            model=DIN(), task=Pointwise(), source=SourceConfig(), loader=Loader(batch_size=batch),
            optimizer=Optimizer(rows=(r"embed/table_\d+$",)), precision=precision,
        )  # fmt: skip
        with jax.set_mesh(mesh):
            program = Program(experiment, features=features(), mesh=mesh)
            self.state, self.batch = program.init(0), put_batch(rows(batch), mesh=mesh)
            step = jax.jit(program._step, donate_argnums=0, out_shardings=(program.state_sharding, None))
            self.compiled = step.lower(self.state, self.batch).compile()

    def run(self, steps: int) -> float:
        """Seconds of a step."""
        begun = time.perf_counter()
        for _ in range(steps):
            self.state, logs = self.compiled(self.state, self.batch)
        jax.block_until_ready((self.state, logs))
        return (time.perf_counter() - begun) / steps


def longest(steps: Steps, *, count: int, top: int = 5) -> list[dict[str, Any]]:
    """The operations that took most of `count` profiled steps, and their share of the time of all."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            steps.run(count)
        spent = operations(next(Path(folder).rglob("*.xplane.pb")))
    total = sum(spent.values())
    return [
        {"operation": name, "share": round(t / total, 3), "ms_a_step": round(t / 1e6 / count, 3)}
        for name, t in spent.most_common(top)
    ]


def operations(trace: Path) -> Counter[str]:
    """Nanoseconds by operation: of the device's own timeline, or on a CPU of the threads that run the program."""
    planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    spent: Counter[str] = Counter()
    for plane in devices or planes:
        for timeline in plane.lines:
            own = timeline.name.startswith("XLA Ops") or "Stream" in timeline.name
            if own if devices else timeline.name.startswith("tf_"):
                for event in timeline.events:
                    if not event.name.startswith(WAITS):
                        spent[event.name] += event.duration_ns
    return spent


def measure(args: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(batch=args.batch, precision=args.precision)
    steps.run(2)
    seconds = statistics.median(steps.run(args.steps) for _ in range(5))
    costs = steps.compiled.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    tflops, gbs = costs["flops"] / seconds / 1e12, costs["bytes accessed"] / seconds / 1e9
    return {
        "benchmark": "accelerator",
        "device": jax.devices()[0].device_kind,
        "batch": args.batch,
        "precision": args.precision,
        "step_ms": round(seconds * 1e3, 3),
        "rows_per_s": round(args.batch / seconds),
        "gflop_a_step": round(costs["flops"] / 1e9, 2),
        "gb_a_step": round(costs["bytes accessed"] / 1e9, 3),
        "tflops": round(tflops, 3),
        "bandwidth_gbs": round(gbs, 1),
        "share_of_peak_arithmetic": args.peak_tflops and round(tflops / args.peak_tflops, 3),
        "share_of_peak_bandwidth": args.peak_gbs and round(gbs / args.peak_gbs, 3),
        "longest": longest(steps, count=args.steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, help="of the device in this precision")
    parser.add_argument("--peak-gbs", type=float, help="bandwidth of the device's memory, GB/s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = measure(args)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
