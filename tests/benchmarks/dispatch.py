"""What the spine costs above plain JAX: one train step of configs/dnn_mall.py against the same step by hand.

    python -m tests.benchmarks.dispatch [--json FILE]

The steps take turns, round by round; both are donated, both end on the loss being ready. The small batch shows
dispatch alone, the config's own batch shows what of it is left in a real step.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from tests.contract.cases import ROOT, read_config
from train.program import Program
from train.sharding import put_batch


def by_hand(program: Program, batch):
    """The DNN of the config written out: one gather per width, two layers, Adam with the config's settings."""
    state = program.init(0)
    model = program.experiment.model.make(program.features, rngs=nnx.Rngs(0))
    embed, widths = model.embed, program.experiment.model.mlp.widths
    params, tx = dict(state["params"]), program.tx
    opt = tx.init(params)
    slots = [s for s in embed.slots if s.form == "lookup"]
    numeric = [s for s in embed.slots if s.form == "numeric"]
    width = slots[0].width

    def forward(p, batch):
        columns, ends = [], []
        for s in slots:
            ids = batch[s.name]
            ids = jnp.where((ids >= 0) & (ids < s.size), ids, 1) + s.index
            columns.append(ids[:, None] if ids.ndim == 1 else ids)
            ends.append(columns[-1].shape[1])
        rows = p[f"embed/table_{width}"][jnp.concatenate(columns, axis=1)]
        named, start = {}, 0
        for s, n in zip(slots, ends, strict=True):
            part = rows[:, start : start + n]
            start += n
            if n == 1 and not s.masked:
                named[s.name] = part[:, 0]
            else:
                length = batch[f"{s.name}/length"]
                mask = (jnp.arange(n)[None, :] < length[:, None]).astype(part.dtype)
                named[s.name] = (part * mask[..., None]).sum(1) / jnp.maximum(length, 1)[:, None]
        for s in numeric:
            named[s.name] = batch[s.name][:, None] * p[f"embed/numeric_{s.width}"][s.index][None]
        x = jnp.concatenate([named[s.name] for s in embed.slots], axis=-1)
        for i in range(len(widths)):
            x = jax.nn.relu(x @ p[f"mlp/hidden/{i}/linear/kernel"] + p[f"mlp/hidden/{i}/linear/bias"][None])
        return (x @ p["mlp/out/kernel"] + p["mlp/out/bias"][None])[:, 0]

    def step(params, opt, batch):
        def loss_fn(p):
            return optax.sigmoid_binary_cross_entropy(forward(p, batch), batch["click"]).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, loss

    return jax.jit(step, donate_argnums=(0, 1)), params, opt


def measure(rows: int, *, rounds: int, repeats: int) -> dict[str, float]:
    config = read_config(ROOT / "configs/dnn_mall.py", [f"loader.batch_size={rows}"])
    batches = config.loader.open(config.source.make())
    mesh = config.mesh.make(devices=jax.devices()[:1])
    program = Program(config, features=batches.features, mesh=mesh)
    with jax.set_mesh(mesh):
        batch = put_batch(next(batches), mesh=mesh)
        batches.close()
        state = program.init(0)
        step, params, opt = by_hand(program, batch)
        ours, plain = [], []
        for round_ in range(rounds + 2):
            begun = time.perf_counter()
            for _ in range(repeats):
                state, logs = program.train_step(state, batch)
            jax.block_until_ready((state, logs))
            middle = time.perf_counter()
            for _ in range(repeats):
                params, opt, loss = step(params, opt, batch)
            jax.block_until_ready((params, opt, loss))
            if round_ >= 2:
                ours.append((middle - begun) / repeats * 1e6)
                plain.append((time.perf_counter() - middle) / repeats * 1e6)
    gaps = [a - b for a, b in zip(ours, plain, strict=True)]
    return {
        "batch": rows,
        "ours_us": round(statistics.median(ours), 1),
        "plain_us": round(statistics.median(plain), 1),
        "overhead_us": round(statistics.median(gaps), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = {
        "benchmark": "dispatch",
        "small": measure(8, rounds=20, repeats=50),
        "config": measure(1024, rounds=10, repeats=10),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
