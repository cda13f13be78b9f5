"""Online ranking: 500 candidates for a user with 50 behaviours by DIN, over HTTP from another process on loopback.

    python -m tests.benchmarks.online [--seconds 20] [--json tests/benchmarks/online.json]
    python -m tests.benchmarks.online --engines jax --body binary

First as many requests as closed loops get (saturation), then an open loop at 60 % of that rate, whose latencies count
from the moment when a request was due. `onnx` is the same server, encoding and tower with ONNX Runtime in place of the
exported program, which takes all cores for a call as it does by default; `onnx1` gives each call one core, as
`serve up` gives the program. Server and load share the machine's cores. All traffic is to 127.0.0.1 and ends by itself.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.http_load import Load, Report

CANDIDATES, BEHAVIOURS, DIM = 500, 50, 16
SIZES = {"user": 50_000, "segment": 12, "query": 400, "hour": 26, "item": 100_000, "category": 400, "brand": 5_000}
SHARE = 0.6
NAME = "din"
ENGINES = ("jax", "onnx", "onnx1")


def features() -> Any:
    from data.features import Categorical, Features, Numeric, Sequence

    def id(name: str, role: Any) -> Categorical:
        return Categorical(name=name, rows=SIZES[name], role=role)

    item, category = id("item", "item"), id("category", "item")
    return Features(
        all=(
            *(id(name, "user") for name in ("user", "segment")),
            *(id(name, "context") for name in ("query", "hour")),
            item,
            category,
            id("brand", "item"),
            Numeric(name="price", role="item"),
            Sequence(name="history", of=item, length=BEHAVIOURS, role="user"),
            Sequence(name="history_category", of=category, length=BEHAVIOURS, role="user"),
        )
    )


def tower() -> tuple[Callable[..., Any], dict[str, np.ndarray]]:
    """DIN of width 16 as in configs/din_mall.py, random weights: speed does not ask what they are."""
    import jax
    from flax import nnx

    from modules.behavior.din import DIN

    graph, state = nnx.split(DIN(dim=DIM).make(features(), rngs=nnx.Rngs(0)))
    order = [path for path, _ in nnx.to_flat_state(state)]
    weights = {"/".join(map(str, p)): np.asarray(v.get_value()) for p, v in nnx.to_flat_state(state)}

    def function(weights: Any, batch: Any) -> dict[str, Any]:
        flat = [(path, weights["/".join(map(str, path))]) for path in order]
        return {"score": jax.nn.sigmoid(nnx.merge(graph, nnx.from_flat_state(flat))(batch)["logit"])}

    return function, weights


def write_artifact(folder: Path, *, seed: int = 0) -> Path:
    """`seed` makes another version: other weights of the same tower."""
    from serve.export import held_once, id_bounds, random_rows
    from serve.pack import pack
    from train.snapshot import dump

    function, weights = tower()
    scale = np.float32(1 + seed / 1000)
    declared = features()
    return pack(
        folder,
        function=function,
        weights={name: a * scale if a.dtype == np.float32 else a for name, a in weights.items()},
        inputs=declared.arrays(inputs_only=True),
        rows=id_bounds(declared),
        sample=random_rows(declared, rows=16),
        step=seed,
        about={"model": "modules.behavior.din:DIN", "features": dump(declared)},
        platforms=("cpu",),
        shared=held_once(declared),
    )


def bodies(kind: str, *, count: int = 64, candidates: int = CANDIDATES) -> list[tuple[str, dict[str, str], bytes]]:
    """Path, headers and body of requests of different users."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)

        def ids(name: str, n: int, rng: np.random.Generator = rng) -> np.ndarray:
            return np.minimum(rng.zipf(1.3, n) + 1, SIZES[name] - 1).astype(np.int32)

        user = {name: int(ids(name, 1)[0]) for name in ("user", "segment", "query", "hour")}
        user |= {"history": ids("item", BEHAVIOURS).tolist(), "history_category": ids("category", BEHAVIOURS).tolist()}
        items = {name: ids(name, candidates) for name in ("item", "category", "brand")}
        prices = rng.normal(size=candidates).astype(np.float32)
        if kind == "rank":
            columns = {name: a.tolist() for name, a in items.items()} | {"price": np.round(prices, 3).tolist()}
            made.append(("/v1/rank", {}, json.dumps({"user": user, "candidates": columns, "k": 50}).encode()))
            continue
        rows = {name: np.atleast_1d(np.array(value, np.int32)) for name, value in user.items()}
        for name in ("history", "history_category"):
            rows |= {name: rows[name][None], f"{name}/length": np.array([BEHAVIOURS], np.int32)}
        made.append(_binary(rows | items | {"price": prices}))
    return made


def _binary(rows: dict[str, np.ndarray]) -> tuple[str, dict[str, str], bytes]:
    kinds = {"i": "INT32", "f": "FP32"}
    inputs = [
        {
            "name": name,
            "shape": list(a.shape),
            "datatype": kinds[a.dtype.kind],
            "parameters": {"binary_data_size": a.nbytes},
        }
        for name, a in rows.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"request": True, "binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return f"/v2/models/{NAME}/infer", headers, head + b"".join(a.tobytes() for a in rows.values())


def serve(path: Path, *, engine: str, threads: int) -> None:
    """The server's process."""
    from serve.cli_up import share_cores, use_compile_cache
    from serve.up.config import Up
    from serve.up.run import run

    config = Up(path=path, name=NAME, threads=threads, watch_seconds=0, max_batch=512)
    share_cores(config)
    use_compile_cache(None)
    if engine != "jax":
        use_onnx(cores=1 if engine == "onnx1" else 0)
    run(config, host="127.0.0.1", port=0, say=lambda text: print(text, flush=True))


def use_onnx(*, cores: int) -> None:
    """Puts ONNX Runtime where the artefact's program for requests is; all else stays. 0 cores are its default."""
    import jax
    import jax.numpy as jnp
    import jax2onnx
    import onnxruntime

    from modules.layers.position_blocks import one_block
    from serve.export import held_once
    from serve.up import serving

    function, weights = tower()
    inputs = features().arrays(inputs_only=True)
    once, names = held_once(features()), sorted(inputs)
    (b,) = jax.export.symbolic_shape("b", constraints=["b >= 2"])
    specs = [jax.ShapeDtypeStruct((1 if n in once else b, *inputs[n][0]), inputs[n][1]) for n in names]

    def flat(*arrays: Any) -> Any:
        held = {name: jnp.asarray(array) for name, array in weights.items()}
        return function(held, dict(zip(names, arrays, strict=True)))["score"]

    with one_block():
        model = jax2onnx.to_onnx(flat, specs, input_names=names, output_names=["score"], model_name=NAME)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    plain = serving.load

    class Engine:
        max_batch = 512

        def __call__(self, rows: Any) -> dict[str, np.ndarray]:
            return {"score": session.run(["score"], {n: np.asarray(rows[n]) for n in names})[0]}

    def load(path: Path, **options: Any) -> Any:
        artifact = plain(path, **options)
        sample = {n: np.zeros((1 if n in once else 500, *s), dtype) for n, (s, dtype) in inputs.items()}
        wanted = artifact.request(sample)["score"]
        artifact._request = Engine()
        np.testing.assert_allclose(artifact.request(sample)["score"], wanted, atol=1e-5)
        return artifact

    serving.load = load


def started(path: Path, *, engine: str, threads: int) -> tuple[subprocess.Popen, int]:
    words = [sys.executable, "-m", "tests.benchmarks.online", "--serve", str(path), "--engines", engine]
    child = subprocess.Popen([*words, "--threads", str(threads)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if "http://" in line:
            return child, int(line.rsplit(":", 1)[1])
    raise SystemExit(f"the server of {engine} did not start: exit code {child.wait()}")


def measure(path: Path, *, engine: str, kind: str, seconds: float, threads: int) -> dict[str, Any]:
    child, port = started(path, engine=engine, threads=threads)
    try:
        load = Load(port, bodies(kind))
        asyncio.run(load.closed(clients=2, seconds=min(3.0, seconds)))  # warm
        tried = {n: asyncio.run(load.closed(clients=n, seconds=seconds)) for n in (1, 2, 4, 8)}
        clients, most = max(tried.items(), key=lambda pair: pair[1].rate)
        steady = asyncio.run(load.open(rate=SHARE * most.rate, seconds=2 * seconds))
    finally:
        child.terminate()
        child.wait(30)
    return {
        "engine": engine,
        "body": kind,
        "body_bytes": len(load.requests[0]),
        "saturation_qps": round(most.rate, 1),
        "clients_at_saturation": clients,
        "closed": {n: _row(r) for n, r in tried.items()},
        "at_60_percent": _row(steady),
    }


def _row(report: Report) -> dict[str, Any]:
    p50, p90, p99 = (round(1e3 * v, 2) for v in report.percentiles(50, 90, 99))
    return {
        "qps": round(report.rate, 1),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "requests": report.good,
        "failed": report.failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of each closed loop; the open one takes twice that"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--body", choices=("rank", "binary"), default="rank")
    parser.add_argument("--threads", type=int, default=2, help="of the server")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, engine=args.engines[0], threads=args.threads)
        return
    runs, begun = [], time.time()
    with tempfile.TemporaryDirectory() as scratch:
        path = write_artifact(Path(scratch) / "export")
        for engine in args.engines:
            runs.append(measure(path, engine=engine, kind=args.body, seconds=args.seconds, threads=args.threads))
            print(json.dumps(runs[-1]), flush=True)
    result = {
        "benchmark": "online",
        "candidates": CANDIDATES,
        "behaviours": BEHAVIOURS,
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[1], 1),
        "seconds": round(time.time() - begun),
        "runs": runs,
    }
    by = {run["engine"]: run["saturation_qps"] for run in runs}
    others = [rate for engine, rate in by.items() if engine != "jax"]
    if "jax" in by and others:
        result["saturation_over_best_onnx"] = round(by["jax"] / max(others), 2)
    print(json.dumps({k: v for k, v in result.items() if k != "runs"}))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
