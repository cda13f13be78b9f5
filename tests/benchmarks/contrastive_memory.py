"""What the chunked sigmoid loss holds at a batch of 8,192 against the whole logits of a batch of 1,024.

    python -m tests.benchmarks.contrastive_memory [--json FILE] [--batch 8192] [--small 1024] [--dim 64]

Both are bytes of scratch memory of the compiled loss with its gradients, as the compiler states them; what is counted
as activations are the vectors of both sides and their gradients. The chunk is the largest that holds no more logits
at a time than the small batch has. Gradients are compared with the dense form's at a batch that dense form can hold.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from modules.losses.contrastive import sigmoid_contrastive


def step(chunk: int | None):
    loss = functools.partial(sigmoid_contrastive, scale=10.0, bias=-10.0, chunk=chunk)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def scratch(*, batch: int, dim: int, chunk: int | None) -> int:
    side = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
    return int(step(chunk).lower(side, side).compile().memory_analysis().temp_size_in_bytes)


def difference(*, batch: int, dim: int, chunk: int) -> float:
    """Largest difference of the gradients from the dense form's, against the largest gradient."""
    sides = np.random.default_rng(0).normal(size=(2, batch, dim)).astype(np.float32)
    sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
    dense, chunked = (step(c)(*sides)[1] for c in (None, chunk))
    worst = max(float(jnp.abs(a - b).max()) for a, b in zip(dense, chunked, strict=True))
    return worst / max(float(jnp.abs(g).max()) for g in dense)


def measure(*, batch: int, small: int, dim: int) -> dict:
    chunk = max(small * small // batch, 1)
    activations = 4 * batch * dim * 4
    chunked, dense_small = scratch(batch=batch, dim=dim, chunk=chunk), scratch(batch=small, dim=dim, chunk=None)
    return {
        "batch": batch,
        "small": small,
        "dim": dim,
        "chunk": chunk,
        "chunked_bytes": chunked,
        "chunked_less_activations": chunked - activations,
        "small_dense_bytes": dense_small,
        "ratio": (chunked - activations) / dense_small,
        "whole_dense_bytes": scratch(batch=batch, dim=dim, chunk=None),
        "gradient_difference": difference(batch=small, dim=dim, chunk=chunk),
        "goal": "ratio at most 1.3",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--small", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = measure(batch=args.batch, small=args.small, dim=args.dim)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
