"""A live index of which a fifth is replaced: recall beside a fresh build, what an update costs, searches during merges.

    python -m tests.benchmarks.index_live [--rows 300000] [--json FILE]

A mixture as in index_engines. 20 % of the items get other vectors of the same mixture, half of them one by one and half
in batches of 100, while a second thread searches without pause; merges begin by themselves. Then as many are deleted,
and recall at 10 is measured before and after a last merge, beside an index that is built of the same items at once with
the same target. Times of updates are of the wall, searches and merges beside them included.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from serve.index.build import build, build_live
from serve.index.live import LiveIndex
from serve.index.open import open_index
from tests.benchmarks.index_data import K, mixture, recall, truth

SHARE, BATCH = 0.2, 100
RECALL = 0.95


class Searches(threading.Thread):
    """One query after another until told to stop."""

    def __init__(self, index: LiveIndex, queries: np.ndarray):
        super().__init__(daemon=True)
        self.index, self.queries, self.done = index, queries, threading.Event()
        self.times: list[tuple[float, bool]] = []
        self.errors: list[str] = []

    def run(self) -> None:
        at = 0
        while not self.done.is_set():
            merging, start = self.index.stats()["merging"], time.perf_counter()
            try:
                ids, scores = self.index.search(self.queries[at : at + 1], k=K)
                if ids.shape != (1, K) or not np.isfinite(scores).all():
                    raise ValueError(f"{ids.shape} with scores {scores}")
            except Exception as error:  # counted and reported; the benchmark goes on
                self.errors.append(repr(error))
            self.times.append((time.perf_counter() - start, merging))
            at = (at + 1) % len(self.queries)

    def figures(self) -> dict[str, Any]:
        out: dict[str, Any] = {"errors": len(self.errors), "first_errors": self.errors[:3]}
        for name, during in (("during merges", True), ("otherwise", False)):
            times = np.array([seconds for seconds, merging in self.times if merging == during]) * 1e3
            if len(times):
                out[name] = {"searches": len(times), "p50_ms": float(np.median(times)),
                             "p99_ms": float(np.percentile(times, 99)), "max_ms": float(times.max())}  # fmt: skip
        return out


def timed(calls: list[Any]) -> dict[str, float]:
    """Milliseconds of each call."""
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "calls": len(times),
        "mean_ms": float(np.mean(times)),
        "p99_ms": float(np.percentile(times, 99)),
        "max_ms": max(times),
    }


def measure(*, rows: int, dim: int, folder: Path) -> dict[str, Any]:
    changed = int(SHARE * rows)
    points, queries = mixture(rows=rows + changed, queries=1500, dim=dim)
    vectors, new = points[:rows], points[rows:]
    held, asked = queries[:1000], queries[1000:]
    rng = np.random.default_rng(2)
    build_live(vectors, ids=range(rows), recall=RECALL, queries=held, threads=1).save(folder)
    index = open_index(folder, write=True)
    assert isinstance(index, LiveIndex)
    chosen = rng.permutation(rows)
    replaced, deleted = chosen[:changed], chosen[changed : 2 * changed]
    searches = Searches(index, asked)
    searches.start()
    half = changed // 2
    single = timed([lambda i=i: index.upsert([replaced[i]], new[i : i + 1]) for i in range(half)])
    batches = timed(
        [
            lambda s=slice(i, min(i + BATCH, changed)): index.upsert(replaced[s], new[s])
            for i in range(half, changed, BATCH)
        ]
    )
    print(f"replaced {changed:,}", index.stats(), file=sys.stderr, flush=True)
    index.wait()
    now = vectors.copy()
    now[replaced] = new
    result: dict[str, Any] = {"rows": rows, "dim": dim, "upsert": single, f"upsert of {BATCH}": batches}
    result["replaced"] = against_fresh(index, now, ids=np.arange(rows), held=held, asked=asked)
    singly = deleted[: min(len(deleted), 5000)]
    result["delete"] = timed([lambda i=i: index.delete([i]) for i in singly])
    index.delete(deleted)
    index.wait()
    left = np.setdiff1d(np.arange(rows), deleted)
    result["deleted"] = against_fresh(index, now[left], ids=left, held=held, asked=asked)
    index.merge()
    result["merged"] = against_fresh(index, now[left], ids=left, held=held, asked=asked)
    searches.done.set()
    searches.join()
    result |= {"searches": searches.figures(), "merges": index.merges, "merge_error": index.merge_error}
    start = time.perf_counter()
    index.snapshot()
    result["snapshot_seconds"] = time.perf_counter() - start
    index.close()
    start = time.perf_counter()
    again = open_index(folder)
    result["open_seconds"] = time.perf_counter() - start
    np.testing.assert_array_equal(again.search(asked, k=K)[0], index.search(asked, k=K)[0])
    return result


def against_fresh(
    index: LiveIndex, vectors: np.ndarray, *, ids: np.ndarray, held: np.ndarray, asked: np.ndarray
) -> dict[str, Any]:
    """Recall of the live index, as it is now, and of one that is built of the same items at once."""
    wanted = ids[truth(vectors, asked)]
    state = index.stats()
    live = recall(index.search(asked, k=K)[0], wanted)
    fresh = build(vectors, ids=ids, engine="scann", recall=RECALL, queries=held, threads=1)
    found = {"live": live, "fresh": recall(fresh.search(asked, k=K)[0], wanted)}
    print({**found, "state": state}, file=sys.stderr, flush=True)
    return {**found, "points": 100 * (found["live"] - found["fresh"]), "new": state["new"], "dead": state["dead"],
            "engine": index.made["engine"], "settings": index.made["settings"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(rows=args.rows, dim=args.dim, folder=Path(folder) / "index")
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
