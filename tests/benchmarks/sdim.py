"""What a long history costs a forward pass: DIN's unit, a dot product, SDIM at once, SDIM from a table made before.

    python -m tests.benchmarks.sdim [--json FILE] [--lengths 50 256 1024 4096 10000] [--rows 32] [--candidates 100]

`batch`: as in training, every row with its own full history. `request`: one user, many candidates; there the hash
table is built with the request, or was built before (`table`), and then no length should matter. `plain_unit` is DIN's
unit on [e, v, e - v, e ⊙ v] as one array, `unit` ours, which splits that layer. CPU milliseconds of one call on one
thread, the least of several, all variants in turns: a busy machine distorts wall time more. Width 32 (item and category
of 16), m = 48, τ = 3, unit 80-40 with Dice.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modules.layers.attend import attend
from modules.layers.hash_attention import HashAttention
from modules.layers.mlp import MLP
from modules.layers.target_attention import TargetAttention
from tests.benchmarks.target_attention import written_plainly

WIDTH = 32
ELEMENTS = 1 << 15  # rows x length of a batch, at most
ONLINE = 5_000  # candidates that ask a table made before
SPAN = 0.02  # seconds that one timing lasts
PLAIN = 1 << 17  # candidates x length of the plain unit, at most: it needs 2 kB for each


def variants(*, length: int, users: int, candidates: int) -> dict[str, Callable[[], jax.Array]]:
    rng = np.random.default_rng(0)
    history = jnp.asarray(rng.normal(size=(users, length, WIDTH)), jnp.float32)
    target = jnp.asarray(rng.normal(size=(candidates, WIDTH)), jnp.float32)
    mask = jnp.ones((users, length), bool)
    unit = TargetAttention(WIDTH, mlp=MLP(widths=(80, 40), activation="dice"), rngs=nnx.Rngs(0))
    hashed = HashAttention(WIDTH)
    table = jax.jit(lambda h, m: hashed.build(h, mask=m))(history, mask)
    calls = {
        "unit": lambda h, t, m: unit(h, target=t, mask=m),
        "dot": lambda h, t, m: attend(t, keys=h, values=h, mask=m),
        "sdim": lambda h, t, m: hashed(h, target=t, mask=m),
        "sdim_build_and_query": lambda h, t, m: hashed.query(hashed.build(h, mask=m), target=t),
    }
    compiled = {name: jax.jit(call).lower(history, target, mask).compile() for name, call in calls.items()}
    if candidates * length <= PLAIN:
        with written_plainly():
            plain = jax.jit(lambda h, t, m: unit(jnp.broadcast_to(h, (len(t), *h.shape[1:])), target=t, mask=m))
            compiled["plain_unit"] = plain.lower(history, target, mask).compile()
    out = {name: lambda call=call: call(history, target, mask) for name, call in compiled.items()}
    query = jax.jit(lambda table, t: hashed.query(table, target=t)).lower(table, target).compile()
    return {**out, "table": lambda: query(table, target)}


def milliseconds(calls: dict[str, Callable[[], jax.Array]], *, rounds: int) -> dict[str, float]:
    def seconds(call: Callable[[], jax.Array], *, repeat: int) -> float:
        jax.block_until_ready(call())  # the memory of the call before is given back on the time of this one
        start = time.process_time()
        for _ in range(repeat):
            jax.block_until_ready(call())
        return (time.process_time() - start) / repeat

    # Short calls are repeated, as a clock of processes ticks in milliseconds.
    repeats = {name: int(min(max(SPAN / max(seconds(call, repeat=1), 1e-6), 1), 200)) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], seconds(call, repeat=repeats[name]))
    return {name: round(value * 1e3, 4) for name, value in best.items()}


def measure(length: int, *, rows: int, candidates: int, rounds: int) -> dict:
    rows = max(min(rows, ELEMENTS // length), 1)
    batch = milliseconds(variants(length=length, users=rows, candidates=rows), rounds=rounds)
    request = milliseconds(variants(length=length, users=1, candidates=candidates), rounds=rounds)
    return {
        "length": length,
        "rows": rows,
        "batch_ms": batch,
        "candidates": candidates,
        "request_ms": request,
        "sdim_over_unit": round(batch["unit"] / batch["sdim"], 2),
        "request_over_unit": round(request["unit"] / request["sdim"], 2),
    }


def online(lengths: list[int], *, rounds: int) -> dict[str, float]:
    """Milliseconds of many candidates against the table of one user, by the length of the history it was built from."""
    rng = np.random.default_rng(0)
    hashed, target = HashAttention(WIDTH), jnp.asarray(rng.normal(size=(ONLINE, WIDTH)), jnp.float32)
    calls = {}
    for length in lengths:
        history = jnp.asarray(rng.normal(size=(1, length, WIDTH)), jnp.float32)
        table = jax.jit(lambda h: hashed.build(h, mask=jnp.ones(h.shape[:2], bool)))(history)
        query = jax.jit(lambda table, t: hashed.query(table, target=t)).lower(table, target).compile()
        calls[str(length)] = lambda query=query, table=table: query(table, target)
    return milliseconds(calls, rounds=10 * rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 256, 1024, 4096, 10_000])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    lengths = [measure(t, rows=args.rows, candidates=args.candidates, rounds=args.rounds) for t in args.lengths]
    tables = online(args.lengths, rounds=args.rounds)
    result = {
        "benchmark": "sdim",
        "device": jax.devices()[0].device_kind,
        "threads": 1,
        "load_average": round(os.getloadavg()[0], 1),
        "width": WIDTH,
        "lengths": lengths,
        "table_candidates": ONLINE,
        "table_ms": tables,
        "table_slowest_over_fastest": round(max(tables.values()) / min(tables.values()), 2),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
