"""ScaNN behind our interface against the bare library, exact search, FAISS and hnswlib: one core, recall at 10.

    python -m tests.benchmarks.index_engines [--vectors FILE] [--peer PYTHON] [--json FILE]

Default: 300,000 x 100 unit vectors of a mixture of normal clusters, 1,000 queries of the same mixture that are no
rows, and 1,000 more to choose settings for --recall by; --vectors takes a file or folder of vectors instead and leaves
as many of them out. The bare library opens the files that our index wrote and is called with the same numbers.
--peer is a Python with faiss-cpu and hnswlib. Each kind of search has its turn in every round; medians.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from serve.index.build import build
from serve.index.open import open_index
from tests.benchmarks.index_data import BATCH, K, in_turns, mixture, of_file, one_core, recall, truth

SINGLE, EXACT_SINGLE, EXACT_BATCH = 1000, 20, 200


def measure(vectors: np.ndarray, queries: np.ndarray, *, target: float, rounds: int, folder: Path) -> dict:
    from scann.scann_ops.py import scann_ops_pybind

    held, asked = queries[: len(queries) // 2], queries[len(queries) // 2 :]
    wanted = truth(vectors, asked)
    ids = np.random.default_rng(1).permutation(10 * len(vectors))[: len(vectors)]
    start = time.perf_counter()
    made = build(vectors, ids=ids, engine="scann", recall=target, queries=held, threads=1)
    seconds = time.perf_counter() - start
    path = made.save(folder / "index")
    print(json.dumps({"chosen in": round(seconds, 1), **made.made}), file=sys.stderr)
    ours = open_index(folder / "index")
    exact = build(vectors, ids=ids)
    bare = scann_ops_pybind.load_searcher(str(path / "scann"))
    reorder, leaves = made.made["settings"]["reorder"], made.made["settings"]["searched"]
    same = {"final_num_neighbors": K, "pre_reorder_num_neighbors": reorder, "leaves_to_search": leaves}
    found, _ = ours.search(asked, k=K)
    library, _ = bare.search_batched(asked, **same)
    np.testing.assert_array_equal(found, ids[library])
    single = asked[:SINGLE]
    rates = in_turns(
        {
            "ours, single": lambda: [ours.search(query[None], k=K) for query in single],
            "bare, single": lambda: [bare.search(query, **same) for query in single],
            "ours, batch": lambda: ours.search(asked, k=K),
            "bare, batch": lambda: bare.search_batched(asked, **same),
            "exact, single": lambda: [exact.search(query[None], k=K) for query in single[:EXACT_SINGLE]],
            "exact, batch": lambda: exact.search(asked[:EXACT_BATCH], k=K),
        },
        queries={
            "ours, single": len(single),
            "bare, single": len(single),
            "ours, batch": len(asked),
            "bare, batch": len(asked),
            "exact, single": min(EXACT_SINGLE, len(single)),
            "exact, batch": min(EXACT_BATCH, len(asked)),
        },
        rounds=rounds,
    )
    place = np.argsort(ids)
    rows = place[np.searchsorted(ids[place], found)]
    return {
        "rows": len(vectors),
        "dim": vectors.shape[1],
        "made": made.made,
        "build_seconds": seconds,
        "recall@10": recall(rows, wanted),
        "qps": rates,
        "ours/bare": {
            kind: rates[f"ours, {kind}"]["qps"] / rates[f"bare, {kind}"]["qps"] for kind in ("single", "batch")
        },
        "ours/exact": {
            kind: rates[f"ours, {kind}"]["qps"] / rates[f"exact, {kind}"]["qps"] for kind in ("single", "batch")
        },
    }


def of_peer(python: Path, vectors: np.ndarray, queries: np.ndarray, *, rounds: int, folder: Path) -> dict:
    """FAISS and hnswlib on the same rows and queries, in their own Python."""
    asked = queries[len(queries) // 2 :]
    np.savez(folder / "peer.npz", vectors=vectors, queries=asked, truth=truth(vectors, asked))
    script = Path(__file__).with_name("index_peer.py")
    done = subprocess.run(
        [python, script, folder / "peer.npz", str(rounds)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    one_core()
    if args.vectors is None:
        vectors, queries = mixture(rows=args.rows, queries=2 * BATCH, dim=args.dim)
    else:
        vectors, queries = of_file(args.vectors, queries=2 * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(vectors, queries, target=args.recall, rounds=args.rounds, folder=Path(folder))
        if args.peer is not None:
            results["peers"] = of_peer(args.peer, vectors, queries, rounds=args.rounds, folder=Path(folder))
    print(f"recall at 10: {results['recall@10']:.4f}; settings {results['made']['settings']}")
    print("| search | QPS single | QPS batch | recall@10 |\n|---|---|---|---|")
    for name, reached in (("ours", results["recall@10"]), ("bare", results["recall@10"]), ("exact", 1.0)):
        single, batch = (results["qps"][f"{name}, {kind}"]["qps"] for kind in ("single", "batch"))
        print(f"| {name} | {single:,.0f} | {batch:,.0f} | {reached:.4f} |")
    for name, row in results.get("peers", {}).items():
        print(f"| {name} | {row['single']:,.0f} | {row['batch']:,.0f} | {row['recall@10']:.4f} |")
    for what in ("ours/bare", "ours/exact"):
        print(what, {kind: round(value, 3) for kind, value in results[what].items()})
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
