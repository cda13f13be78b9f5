"""Batch scoring of the DNN artefact by Ray workers beside the local engine: rows/s, and what a second worker brings.

python -m tests.benchmarks.score_ray --rows 10000000

Each worker is a Ray node of one CPU and is kept to one core, as on a machine of its own, so that two workers against
one say what a second machine brings; the local engine has one core, then all. Rates of workers are from the moment when
each has finished a part, since their start (a process, jax, the model) is no part of the work; the rate with the start
stands beside. Outputs are compared byte by byte. Runs are made in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.score import measure, write_artifact

RESULTS = Path(__file__).with_suffix(".json")


@contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """This process, and those that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def cluster_of(workers: int, *, cores: Sequence[int]) -> Iterator[Any]:
    """A cluster of one-CPU nodes, a core each; its head does no work."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    import ray
    from ray.cluster_utils import Cluster

    from data.cluster import Cluster as Workers

    store = 80 << 20
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store})
    for worker in range(workers):
        with kept_to([cores[worker % len(cores)]]):
            nodes.add_node(num_cpus=1, object_store_memory=store)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield Workers(workers=workers)
    finally:
        ray.shutdown()
        nodes.shutdown()


def score(work: Path, *, rows: int, batch: int, cluster: Any) -> dict[str, float]:
    """Scores into work/ray.parquet."""
    from serve.commands import score_parquet
    from serve.elsewhere import Workers

    finished: list[tuple[float, int]] = []
    write = Workers.write

    def timed(self: Any, parts: Any, *, todo: Any, batch: int) -> Iterator[int]:
        for index in write(self, parts, todo=todo, batch=batch):
            finished.append((time.perf_counter(), todo[index].rows))
            yield index

    Workers.write = timed  # type: ignore[method-assign]
    begun = time.perf_counter()
    try:
        done = score_parquet(
            work / "artifact",
            input=work / f"{rows}.parquet",
            output=work / "ray.parquet",
            batch=batch,
            columns=("id",),
            cluster=cluster,
        )
    finally:
        Workers.write = write  # type: ignore[method-assign]
    (from_then, _), late = finished[cluster.workers - 1], finished[cluster.workers :]
    return {
        "parts": len(finished),
        "rows_per_second": round(sum(rows for _, rows in late) / (finished[-1][0] - from_then)),
        "rows_per_second_with_start": round(done.rows / (time.perf_counter() - begun)),
    }


def child(work: str, rows: str, batch: str, workers: str) -> None:
    with cluster_of(int(workers), cores=sorted(os.sched_getaffinity(0))) as cluster:
        print(json.dumps(score(Path(work), rows=int(rows), batch=int(batch), cluster=cluster)))


def apart(function: str, *words: object) -> str:
    """What a function of this module prints, in a process of its own: Ray forks as it starts, before jax is there."""
    code = f"import sys; from tests.benchmarks.score_ray import {function}; {function}(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def artifact(folder: str) -> None:
    write_artifact(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--work", type=Path, help="folder for rows and artefact (default: a fresh one, removed)")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    runs: dict[str, list[dict[str, float]]] = {}
    same = True
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "artifact").exists():
            apart("artifact", work / "artifact")
        for _ in range(args.rounds):
            for name, kept in (("local, one core", cores[:1]), ("local", cores)):
                with kept_to(kept):
                    runs.setdefault(name, []).append(measure(work, rows=args.rows, batch=args.batch))
            for workers in args.workers:
                found = apart("child", work, args.rows, args.batch, workers).splitlines()[-1]
                runs.setdefault(f"ray {workers}", []).append(json.loads(found))
                same &= (work / "ray.parquet").read_bytes() == (work / "y.parquet").read_bytes()
    middle = {name: statistics.median(r["rows_per_second"] for r in found) for name, found in runs.items()}
    result: dict[str, Any] = {"benchmark": "score_ray", "cpus": len(cores), "rows": args.rows, "batch": args.batch}
    result |= {"same_bytes": same, "median_rows_per_second": middle, "runs": runs}
    if {"ray 1", "ray 2"} <= set(middle) and len(cores) >= 2:
        pairs = zip(runs["ray 1"], runs["ray 2"], strict=True)
        ratios = [two["rows_per_second"] / one["rows_per_second"] for one, two in pairs]
        result["two_workers_over_one"] = round(statistics.median(ratios), 2)
    result["load_average"] = round(os.getloadavg()[0], 1)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
