"""Batch scoring of the DNN config, Parquet to Parquet: rows/s, and peak memory against the number of rows.

python -m tests.benchmarks.score --rows 1000000 10000000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

FIELDS = {
    "user": 200_000,
    "item": 100_000,
    "category": 400,
    "brand": 5_000,
    "query": 20_000,
    "hour": 26,
    "position": 22,
}
FIELDS |= {"segment": 12, "city": 400, "device": 40}
NUMERIC = ("price", "age")
CHUNK = 1 << 19


def write_rows(path: Path, *, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        columns = {"id": np.arange(start, start + n)}
        for name, size in FIELDS.items():
            columns[name] = np.minimum(rng.zipf(1.3, n) + 1, size - 1).astype(np.int32)
        for name in NUMERIC:
            columns[name] = rng.normal(size=n).astype(np.float32)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=CHUNK)
    writer.close()


def write_artifact(folder: Path) -> None:
    """DNN of 12 fields of width 16 and an MLP of 128-64, random weights: speed does not ask what they are."""
    import jax
    import numpy as np
    from flax import nnx

    from data.features import Categorical, Features, Numeric
    from modules.ctr.dnn import DNN
    from modules.layers.mlp import MLP
    from serve.export import id_bounds, random_rows
    from serve.pack import pack
    from train.snapshot import dump

    categorical = tuple(Categorical(name=name, rows=size) for name, size in FIELDS.items())
    features = Features(all=categorical + tuple(Numeric(name=name) for name in NUMERIC))
    model = DNN(dim=16, mlp=MLP(widths=(128, 64))).make(features, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    paths = {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}
    order = [path for path, _ in nnx.to_flat_state(state)]

    def function(weights, batch):
        flat = [(path, weights["/".join(map(str, path))]) for path in order]
        return {"score": jax.nn.sigmoid(nnx.merge(graph, nnx.from_flat_state(flat))(batch)["logit"])}

    pack(
        folder,
        function=function,
        weights={name: np.asarray(value) for name, value in paths.items()},
        inputs=features.arrays(),
        rows=id_bounds(features),
        sample=random_rows(features, rows=16),
        step=0,
        about={"model": "modules.ctr.dnn:DNN", "features": dump(features)},
        platforms=("cpu", "cuda"),
    )


def measure(work: Path, *, rows: int, batch: int) -> dict[str, float]:
    """In a process of its own, since the peak of memory is that of a process."""
    path = work / f"{rows}.parquet"
    if not path.exists():
        write_rows(path, rows=rows)
    code = "import sys; from tests.benchmarks.score import child; child(*sys.argv[1:])"
    words = [sys.executable, "-c", code, str(work / "artifact"), str(path), str(work / "y.parquet"), str(batch)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(artifact: str, path: str, output: str, batch: str) -> None:
    import time

    from serve.commands import score_parquet

    cpu, begun = time.process_time(), time.perf_counter()
    common = {"output": Path(output), "batch": int(batch), "columns": ("id",)}
    done = score_parquet(Path(artifact), input=Path(path), **common)
    seconds = time.perf_counter() - begun
    print(
        json.dumps(
            {
                "rows": done.rows,
                "rows_per_second": round(done.rows / done.seconds),
                "rows_per_second_with_start": round(done.rows / seconds),
                "rows_per_cpu_second": round(done.rows / (time.process_time() - cpu)),
                "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "load_average": round(os.getloadavg()[0], 1),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--work", type=Path, help="folder for rows and artefact (default: a fresh one, removed)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "artifact").exists():
            write_artifact(work / "artifact")
        runs = [measure(work, rows=rows, batch=args.batch) for rows in args.rows]
    ratio = runs[-1]["peak_mib"] / runs[0]["peak_mib"]
    print(
        json.dumps(
            {"benchmark": "score", "cpus": os.cpu_count(), "runs": runs, "peak_ratio": round(ratio, 3)}, indent=2
        )
    )


if __name__ == "__main__":
    main()
