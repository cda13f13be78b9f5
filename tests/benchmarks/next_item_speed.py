"""Seconds an epoch of SASRec with the full softmax on MovieLens-1M, beside plain PyTorch, in turns.

    ADLOOM_DATA=... python -m tests.benchmarks.next_item_speed --peer PYTHON [--steps 48] [--rounds 3] [--json FILE]

Both: width 64, two blocks, two heads, dropout .2, the newest 200 items, batch 128, Adam, full softmax at every position
that has a target, the same rows, each side in an order of its own. Ours pads to buckets of length, the peer to 200 and
takes the positions with a target out before its softmax. PYTHON is an interpreter with torch, of an environment of its
own. A step of ours is averaged over the widths of a pass.
Seconds an epoch are those of a step times the steps of a pass; the best round of each side counts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LENGTH, BATCH, DIM, HEADS, DEPTH, DROPOUT = 200, 128, 64, 2, 2, 0.2


def ours(*, steps: int) -> dict:
    """In a process of its own, as the peer is."""
    import jax

    from data.pipeline import Buckets, Loader
    from data.sequence_file import SequenceFile
    from data.transforms.history import NextTargets
    from modules.sequential.sasrec import SASRec
    from train.experiment import Experiment
    from train.optim import Optimizer
    from train.program import Program
    from train.sharding import put_batch
    from train.tasks.next_item import NextItem

    config = Experiment(
        model=SASRec(dim=DIM, heads=HEADS, depth=DEPTH, dropout=DROPOUT),
        task=NextItem(objective="softmax", chunk=2),
        source=SequenceFile(path="$ADLOOM_DATA/seq/ml-1m-sas", max_len=LENGTH),
        loader=Loader(
            batch_size=BATCH,
            transforms=(NextTargets(target="target"),),
            buckets=Buckets(widths=(25, 50, 75, 100, 125, 150, 175)),
        ),
        optimizer=Optimizer(lr=1e-3),
        steps=10**6,
    )
    source = config.source.make()
    epoch = -(-len(source) // BATCH)
    batches = config.loader.open(source)
    mesh = config.mesh.make(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        program = Program(config, features=batches.features, mesh=mesh)
        state = program.init(0)
        held = [put_batch(next(batches), mesh=mesh) for _ in range(max(steps, epoch))]
        for width in {b["history"].shape[1] for b in held}:  # each width is compiled before the clock starts
            first = next(b for b in held if b["history"].shape[1] == width)
            state, logs = program.train_step(state, first)
        jax.block_until_ready(logs)
        begun = time.perf_counter()
        # A whole pass or its share of each width: `steps` evenly from the epoch's batches.
        for k in range(steps):
            state, logs = program.train_step(state, held[k * len(held) // steps])
        jax.block_until_ready(logs)
        seconds = (time.perf_counter() - begun) / steps
    batches.close()
    return {"step_s": seconds, "steps_per_epoch": epoch, "epoch_s": seconds * epoch, "loss": float(logs["loss"])}


def rows(path: Path) -> None:
    """The rows of a pass for the peer, which has none of our code."""
    import numpy as np

    from data.sequence_file import SequenceFile
    from data.transforms.history import NextTargets

    source = SequenceFile(path="$ADLOOM_DATA/seq/ml-1m-sas", max_len=LENGTH).make()
    batch = NextTargets(target="target")(source.columns, rng=np.random.default_rng(0))
    np.savez(path, history=batch["history"], targets=batch["targets"], rows=source.features["history"].size)


def peer(path: Path, *, steps: int) -> dict:
    """Plain PyTorch: runs in the peer's interpreter."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    data = np.load(path)
    history, targets = torch.from_numpy(data["history"]).long(), torch.from_numpy(data["targets"]).long()

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_attention, self.norm_mlp = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
            self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
            self.up, self.down = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
            self.drop = nn.Dropout(DROPOUT)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm_attention(x)).view(b, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            # Padding stands at the end, so that causal attention never reads it.
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(b, t, DIM)))
            return x + self.drop(self.down(self.drop(F.gelu(self.up(self.norm_mlp(x)), approximate="tanh"))))

    class SASRec(nn.Module):
        def __init__(self, items):
            super().__init__()
            self.item = nn.Embedding(items, DIM)
            nn.init.normal_(self.item.weight, std=0.02)
            self.position = nn.Parameter(0.02 * torch.randn(LENGTH, DIM))
            self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
            self.last, self.drop = nn.LayerNorm(DIM), nn.Dropout(DROPOUT)

        def forward(self, history, targets):
            x = self.drop(self.item(history) * DIM**0.5 + self.position)
            for block in self.blocks:
                x = block(x)
            real = targets > 1
            return F.cross_entropy(self.last(x)[real] @ self.item.weight.T, targets[real])

    torch.manual_seed(0)
    model = SASRec(int(data["rows"]))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.randperm(len(history))

    def step(k):
        chosen = order[(k * BATCH) % len(order) :][:BATCH]
        adam.zero_grad(set_to_none=True)
        loss = model(history[chosen], targets[chosen])
        loss.backward()
        adam.step()
        return float(loss)

    for k in range(2):
        step(k)
    begun = time.perf_counter()
    for k in range(steps):
        loss = step(2 + k)
    seconds = (time.perf_counter() - begun) / steps
    epoch = -(-len(history) // BATCH)
    return {"step_s": seconds, "steps_per_epoch": epoch, "epoch_s": seconds * epoch, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="interpreter with torch")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    if args.side:
        print(json.dumps(ours(steps=args.steps) if args.side == "ours" else peer(args.rows, steps=args.steps)))
        return
    found: dict[str, list[dict]] = {"ours": [], **({"peer": []} if args.peer else {})}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        rows(path)
        for _ in range(args.rounds):
            for side, results in found.items():
                start = [sys.executable, "-m", "tests.benchmarks.next_item_speed"]
                command = start if side == "ours" else [args.peer, __file__]
                command = [*command, "--side", side, "--steps", str(args.steps), "--rows", str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
                print(side, results[-1], flush=True)
    best = {side: min(r["epoch_s"] for r in results) for side, results in found.items()}
    summary = {"epoch_s": best, "rounds": found, "steps": args.steps, "batch": BATCH, "length": LENGTH}
    if args.peer:
        summary["times_as_fast"] = best["peer"] / best["ours"]
    print(json.dumps({name: summary[name] for name in summary if name != "rounds"}))
    args.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
