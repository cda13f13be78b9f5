"""One contrastive run on 1, 2 and 4 devices: the batch is global, so the loss curve is one and the same.

    python -m tests.benchmarks.global_batch [--steps 60] [--devices 1,2,4] [--json FILE]

`image_text_mall` by softmax and by sigmoid, dense and in chunks that travel round the mesh. `apart` is the
largest difference of a step's loss from that on one device; the goal is 1e-4. Devices are fake ones of the CPU.
"""

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any

from train.__main__ import prepare_environment

OBJECTIVES, CHUNKS = ("softmax", "sigmoid"), (None, 32)
GOAL = 1e-4


def curve(experiment, *, devices: int, steps: int) -> list[float]:
    """The loss of every step."""
    import jax

    from train.program import Program
    from train.sharding import Mesh, put_batch

    mesh = Mesh().make(devices=jax.devices()[:devices])
    batches = experiment.loader.open(experiment.source.make())
    losses = []
    with jax.set_mesh(mesh):
        program = Program(experiment, features=batches.features, mesh=mesh)
        state = program.init(experiment.seed)
        for _ in range(steps):
            state, logs = program.train_step(state, put_batch(next(batches), mesh=mesh))
            losses.append(float(logs["loss"]))
    batches.close()
    return losses


def compare(experiment, *, devices: list[int], steps: int) -> dict[str, Any]:
    curves = {count: curve(experiment, devices=count, steps=steps) for count in devices}
    alone, *others = devices
    apart = {str(count): max(abs(a - b) for a, b in zip(curves[alone], curves[count], strict=True)) for count in others}
    return {"first": curves[alone][0], "last": curves[alone][-1], "apart": apart}


def variant(objective: str, chunk: int | None, *, steps: int):
    """image_text_mall with one loss; the sigmoid starts from its own temperature and offset."""
    import chz

    from configs import image_text_mall

    plain = image_text_mall.plain()
    model = chz.replace(plain.model, bias=-10.0) if objective == "sigmoid" else plain.model
    task = chz.replace(plain.task, objective=objective, chunk=chunk)
    return chz.replace(plain, model=model, task=task, steps=steps, evals={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--devices", default="1,2,4")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    devices = [int(word) for word in args.devices.split(",")]
    flag = f"--xla_force_host_platform_device_count={max(devices)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    prepare_environment(distributed=False)

    found: dict[str, Any] = {}
    for objective, chunk in itertools.product(OBJECTIVES, CHUNKS):
        name = f"{objective}/{'dense' if chunk is None else f'chunks of {chunk}'}"
        experiment = variant(objective, chunk, steps=args.steps)
        found[name] = compare(experiment, devices=devices, steps=args.steps)
        apart = ", ".join(f"{count} devices {value:.1e}" for count, value in found[name]["apart"].items())
        print(f"{name}: {found[name]['first']:.3f} to {found[name]['last']:.3f}; apart {apart}", flush=True)
    holds = all(value <= GOAL for case in found.values() for value in case["apart"].values())
    result = {"benchmark": "global_batch", "steps": args.steps, "goal": GOAL, "holds": holds, "cases": found}
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
