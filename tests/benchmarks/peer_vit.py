"""The peer's half of `tests.benchmarks.encode_peer`, run by the peer's interpreter: the same ViT in plain PyTorch.

Reads one JSON request a line and answers each with one JSON line. Needs torch alone; nothing of adloom is imported.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, dim: int, *, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        query, key, value = self.qkv(self.norm_attention(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(b, t, d)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm_mlp(x)), approximate="tanh"))


class ViT(nn.Module):
    """Patches, learned positions, blocks with the norm first, a last norm, mean over the patches."""

    def __init__(self, *, side: int, patch: int, dim: int, depth: int, heads: int):
        super().__init__()
        self.project = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(torch.zeros((side // patch) ** 2, dim))
        self.blocks = nn.ModuleList([Block(dim, heads=heads) for _ in range(depth)])
        self.last = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (images.float() / 127.5 - 1.0).permute(0, 3, 1, 2)
        x = self.project(pixels).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean(dim=1)


class Run:
    """The network with our weights, and the batches."""

    def __init__(self, sizes: dict, *, weights: str, images: str):
        self.model = ViT(**sizes).eval()
        stored = {name: torch.from_numpy(value) for name, value in np.load(weights).items()}
        self.model.load_state_dict(stored)  # every name and shape must fit
        self.batches = list(torch.from_numpy(np.load(images)))

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def encode(self, steps: int) -> dict:
        with torch.inference_mode():
            cpu, wall = time.process_time(), time.perf_counter()
            for i in range(steps):
                self.model(self.batches[i % len(self.batches)]).numpy()
            return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}

    def vectors(self, to: str) -> dict:
        with torch.inference_mode():
            np.save(to, self.model(self.batches[0]).numpy())
        return {}


def answer(request: dict, run: Run | None) -> tuple[dict, Run | None]:
    action = request.pop("do")
    if action == "about":
        torch.set_num_threads(request["threads"])
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}, None
    if action == "open":
        run = Run(**request)
        return {"parameters": run.parameters()}, run
    return getattr(run, action)(**request), run


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr  # what a library prints is no answer
    run = None
    for line in sys.stdin:
        said, run = answer(json.loads(line), run)
        answers.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
