"""Pictures encoded a second beside PyTorch's: the same ViT with the same weights, in turns on the same processors.

    python -m tests.benchmarks.encode_peer --peer PYTHON [--json FILE] [--threads 1] [--batches 64,256]

PYTHON is an interpreter with torch (`pip install torch`). The network is ViT-tiny on 64x64 bytes: patches of 8, width
192, 12 blocks, 3 heads. Before anything is timed the vectors of both sides must agree. A round is a few batches of
ours, then as many of theirs; `ratio` is the median of rounds, with the lowest and highest.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.peers import BATCHES, Peer, Timed, in_turns, timed
from train.__main__ import prepare_environment

SIZES = {"side": 64, "patch": 8, "dim": 192, "depth": 12, "heads": 3}
CLOSE = 1e-4


class Ours:
    """Our encoder on one device, and its batches."""

    def __init__(self, batches: np.ndarray):
        import jax
        from flax import nnx

        from modules.encoders.vision import ViT
        from train.graph import split, values_of, with_values

        sizes = dict(SIZES)
        side = sizes.pop("side")
        # Shapes alone: to draw each array on the device would compile for minutes.
        graph, params, stats = split(nnx.eval_shape(lambda: ViT(**sizes).make((side, side, 3), rngs=nnx.Rngs(0))))
        self.values = {name: drawn(name, shape=array.shape) for name, array in values_of(params).items()}
        self.batches = list(batches)
        self.encode = jax.jit(lambda values, images: nnx.merge(graph, with_values(params, values), stats)(images))
        self.held = jax.device_put(self.values)

    def run(self, steps: int) -> Timed:
        def encode(count: int) -> None:
            for i in range(count):
                self.vectors(i)

        return timed(encode, steps)

    def vectors(self, i: int) -> np.ndarray:
        return np.asarray(self.encode(self.held, self.batches[i % BATCHES]))


def drawn(name: str, *, shape: tuple[int, ...]) -> np.ndarray:
    """About 1 where a norm scales, else as a layer starts."""
    values = np.random.default_rng(len(name)).normal(size=shape) / np.sqrt(shape[0])
    return (values + name.endswith("scale")).astype(np.float32)


def to_torch(ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters under the peer's names, in the shapes of its layers."""
    patch, dim = SIZES["patch"], SIZES["dim"]
    kernel = ours["patches/project/kernel"].reshape(patch, patch, 3, dim)
    out = {
        "project.weight": kernel.transpose(3, 2, 0, 1),
        "project.bias": ours["patches/project/bias"],
        "positions": ours["patches/positions"],
        "last.weight": ours["transformer/last/scale"],
        "last.bias": ours["transformer/last/bias"],
    }
    for i in range(SIZES["depth"]):
        at, to = f"transformer/blocks/{i}", f"blocks.{i}"
        for name in ("norm_attention", "norm_mlp"):
            out |= {f"{to}.{name}.weight": ours[f"{at}/{name}/scale"], f"{to}.{name}.bias": ours[f"{at}/{name}/bias"]}
        asked = [f"{at}/attention/{name}" for name in ("query", "key", "value")]
        out[f"{to}.qkv.weight"] = np.concatenate([ours[f"{name}/kernel"].T for name in asked])
        out[f"{to}.qkv.bias"] = np.concatenate([ours[f"{name}/bias"] for name in asked])
        for name, here in (("out", "attention/out"), ("up", "up"), ("down", "down")):
            out[f"{to}.{name}.weight"] = ours[f"{at}/{here}/kernel"].T
            out[f"{to}.{name}.bias"] = ours[f"{at}/{here}/bias"]
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def compare(batch: int, *, peer: Peer, work: Path, args) -> dict[str, Any]:
    side = SIZES["side"]
    images = np.random.default_rng(0).integers(0, 256, (BATCHES, batch, side, side, 3), np.uint8)
    np.save(work / "images.npy", images)
    ours = Ours(images)
    np.savez(work / "weights.npz", **to_torch(ours.values))
    paths = {"weights": str(work / "weights.npz"), "images": str(work / "images.npy")}
    theirs = peer.ask("open", sizes=SIZES, **paths)
    peer.ask("vectors", to=str(work / "vectors.npy"))
    apart = float(np.abs(ours.vectors(0) - np.load(work / "vectors.npy")).max())
    if apart > CLOSE:
        raise SystemExit(f"the two networks differ by {apart:.2g}: nothing to compare")
    rates = in_turns(ours.run, lambda n: peer.ask("encode", steps=n), rows=batch, args=args, peer="torch")
    count = sum(value.size for value in ours.values.values())
    return {"parameters": {"ours": count, "torch": theirs["parameters"]}, "largest_difference": apart, **rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python interpreter with torch")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batches", default="64,256", help="pictures a batch, separated by commas")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processors both sides may use")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one side's part of a round")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])  # the peer inherits it
    prepare_environment(distributed=False)

    peer = Peer(args.peer, str(Path(__file__).with_name("peer_vit.py")), threads=args.threads)
    out: dict[str, Any] = {"benchmark": "encode_peer", "machine": platform.processor() or platform.machine()}
    out |= {**peer.about, "load_average": round(os.getloadavg()[0], 1), "network": SIZES, "batches": {}}
    with tempfile.TemporaryDirectory() as work:
        for batch in map(int, args.batches.split(",")):
            found = out["batches"][str(batch)] = compare(batch, peer=peer, work=Path(work), args=args)
            wall, (low, high) = found["wall"], found["wall"]["ratio_low_high"]
            print(
                f"batch {batch}: {wall['ours_rows_per_s']:,} / {wall['torch_rows_per_s']:,} images/s = "
                f"{wall['ratio']:.2f} ({low:.2f}-{high:.2f}), cpu {found['cpu']['ratio']:.2f}",
                flush=True,
            )
            if args.json:
                args.json.write_text(json.dumps(out, indent=1) + "\n")
    peer.end()


if __name__ == "__main__":
    main()
