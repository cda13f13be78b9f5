"""What DIN's attention costs: the first layer split and Dice's gradient by hand, against the formula as it is written.

    python -m tests.benchmarks.target_attention [--json FILE] [--lengths 50] [--widths 16 32] [--threads 1]

Train steps and scoring of a whole DIN (item and category histories, unit 80-40 with Dice, tower 200-80, row-sparse
tables of 100 thousand rows) at batch 1,024, in turns on the same rows; `width` is that of one field, so that
behaviours are twice as wide. CPU seconds are of the process, which a busy machine distorts less than wall time.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

BATCH = 1024


def experiment(*, length: int, model):
    from data.features import Categorical, Features, Label, Sequence
    from data.pipeline import Loader
    from data.sources import SourceConfig
    from train.experiment import Experiment
    from train.optim import Optimizer
    from train.tasks.pointwise import Pointwise

    rows = {"item": 100_000, "category": 1_000}
    features = Features(
        all=(
            Categorical(name="user", role="user", rows=100_000),
            *(Categorical(name=name, role="item", rows=size) for name, size in rows.items()),
            *(
                Sequence(
                    name=f"history_{name}",
                    role="user",
                    of=Categorical(name=name, rows=size, share=name),
                    length=length,
                )
                for name, size in rows.items()
            ),
            Label(name="click"),
        )
    )
    optimizer = Optimizer(rows=(r"embed/table_\d+$",))
    loader = Loader(batch_size=BATCH)
    return features, Experiment(
        model=model, task=Pointwise(), source=SourceConfig(), loader=loader, optimizer=optimizer
    )


@contextlib.contextmanager
def written_plainly() -> Iterator[None]:
    """The unit on [e, v, e - v, e ⊙ v] as one array, and Dice by automatic differentiation."""
    import jax
    import jax.numpy as jnp

    from modules.layers import activations, target_attention

    def weights(self, history, *, target, mask, rngs=None):
        v = jnp.broadcast_to(target[:, None, :], history.shape)
        unit = jnp.concatenate([history, v, history - v, history * v], axis=-1)
        return jnp.where(mask, self.mlp(unit, mask=mask, rngs=rngs)[..., 0], 0)

    def dice(self, x, *, mask=None, rngs=None):
        mean, var = self.mean[...], self.var[...]
        if rngs is not None:
            rows = x.reshape(-1, x.shape[-1])
            weight = jnp.ones(rows.shape[0]) if mask is None else mask.astype(jnp.float32).reshape(-1)
            weight = weight / jnp.maximum(weight.sum(), 1.0)
            mean = weight @ rows
            var = weight @ jnp.square(rows - mean[None, :])
            for kept, new in ((self.mean, mean), (self.var, var)):
                kept[...] = jax.lax.stop_gradient(0.99 * kept[...] + 0.01 * new)
        shape = (1,) * (x.ndim - 1) + (-1,)
        p = jax.nn.sigmoid((x - mean.reshape(shape)) * jax.lax.rsqrt(var + self.epsilon).reshape(shape))
        return p * x + self.alpha[...].reshape(shape) * (1 - p) * x

    def attend(self, history, *, target, mask, rngs=None):
        return jnp.einsum("bt,btd->bd", weights(self, history, target=target, mask=mask, rngs=rngs), history)

    with (
        mock.patch.object(target_attention.TargetAttention, "__call__", attend),
        mock.patch.object(activations.Dice, "__call__", dice),
    ):
        yield


class Run:
    """A program on one device, its state, and rows whose histories are of every length up to the longest."""

    def __init__(self, *, length: int, width: int, rows: int = BATCH, model=None, compiled: bool = True):
        import jax
        import numpy as np

        from modules.behavior.din import DIN
        from train.program import Program
        from train.sharding import Mesh, put_batch

        features, config = experiment(length=length, model=model or DIN(dim=width))
        self.mesh = Mesh().make(devices=jax.devices()[:1])
        self.program = Program(config, features=features, mesh=self.mesh)
        rng = np.random.default_rng(0)
        batch = {f.name: rng.integers(2, f.size, (rows, *f.shape)).astype(np.int32) for f in features}
        lengths = rng.integers(0, length + 1, rows).astype(np.int32)
        batch |= {f"{f.name}/length": lengths for f in features if f.max_len}
        batch["click"] = rng.integers(0, 2, rows).astype(np.float32)
        with jax.set_mesh(self.mesh):
            self.state = self.program.init(0)
            self.batch = put_batch(batch, mesh=self.mesh)
            self.scratch = self._scratch() if compiled else 0

    def _scratch(self) -> int:
        import jax

        lowered = jax.jit(self.program._step, donate_argnums=0).lower(self.state, self.batch)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    def train(self) -> None:
        import jax

        with jax.set_mesh(self.mesh):
            self.state, logs = self.program.train_step(self.state, self.batch)
            jax.block_until_ready((self.state, logs))

    def score(self) -> None:
        import jax

        with jax.set_mesh(self.mesh):
            jax.block_until_ready(self.program.predict(self.program.weights(self.state), self.batch))


def timed(action, *, count: int, rows: int = BATCH) -> tuple[float, float]:
    """CPU seconds per million rows, and rows per second of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        action()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / (count * rows) * 1e6, count * rows / wall


def compare(*, length: int, width: int, rounds: int) -> dict:
    with written_plainly():
        plain = Run(length=length, width=width)
        plain.train()
        plain.score()
    fused = Run(length=length, width=width)
    fused.train()
    fused.score()
    figures: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for name, run in (("plain", plain), ("fused", fused)):
            figures.setdefault(f"{name}_train", []).append(timed(run.train, count=2))
            figures.setdefault(f"{name}_score", []).append(timed(run.score, count=4))
    row: dict = {"length": length, "field_width": width}
    for name, found in figures.items():
        row[f"{name}_cpu_s_per_million_rows"] = round(statistics.median(c for c, _ in found), 1)
        row[f"{name}_rows_per_s"] = round(statistics.median(w for _, w in found))
    row |= {f"{name}_scratch_mib": round(r.scratch / 2**20, 1) for name, r in (("plain", plain), ("fused", fused))}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    rows = [compare(length=t, width=d, rounds=args.rounds) for t in args.lengths for d in args.widths]
    result = {
        "benchmark": "target_attention",
        "batch": BATCH,
        "threads": args.threads,
        "load_average": round(os.getloadavg()[0], 1),
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
