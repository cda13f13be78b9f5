"""Run by `index_engines` in a Python with faiss-cpu and hnswlib: FILE.npz ROUNDS; prints JSON."""

import json
import os
import statistics
import sys
import time

import faiss
import hnswlib
import numpy as np

K, SINGLE = 10, 1000


def rates(search, queries, rounds):
    """Queries a second, one by one and together."""
    single, batch = [], []
    for _ in range(rounds):
        start = time.process_time()
        for query in queries[:SINGLE]:
            search(query[None])
        single.append(len(queries[:SINGLE]) / (time.process_time() - start))
        start = time.process_time()
        search(queries)
        batch.append(len(queries) / (time.process_time() - start))
    return {"single": statistics.median(single), "batch": statistics.median(batch)}


def main():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    faiss.omp_set_num_threads(1)
    data, rounds = np.load(sys.argv[1]), int(sys.argv[2])
    vectors, queries, truth = data["vectors"], data["queries"], data["truth"]
    rows, dim = vectors.shape
    out = {}

    def note(name, search, build):
        found = search(queries)
        recall = float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean())
        out[name] = {**rates(search, queries, rounds), "recall@10": recall, "build_seconds": build}
        print(name, out[name], file=sys.stderr, flush=True)

    lists = round(2 * rows**0.5)
    start = time.process_time()
    flat = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    flat.train(vectors)
    flat.add(vectors)
    build = time.process_time() - start
    for probes in (4, 8, 16, 32, 64):
        flat.nprobe = probes
        note(f"faiss IVF{lists},Flat nprobe {probes}", lambda q: flat.search(q, K)[1], build)
    start = time.process_time()
    codes = faiss.index_factory(dim, f"IVF{lists},PQ{dim // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
    codes.train(vectors)
    codes.add(vectors)
    build = time.process_time() - start
    inner = faiss.extract_index_ivf(codes.base_index)
    for probes, factor in ((8, 8), (16, 8), (16, 16), (32, 16), (64, 16)):
        inner.nprobe, codes.k_factor = probes, factor
        note(f"faiss IVF{lists},PQ{dim // 2}x4fs,RFlat nprobe {probes} k_factor {factor}",
             lambda q: codes.search(q, K)[1], build)  # fmt: skip
    start = time.process_time()
    graph = hnswlib.Index(space="ip", dim=dim)
    graph.init_index(max_elements=rows, M=16, ef_construction=100)
    graph.add_items(vectors, num_threads=1)
    graph.set_num_threads(1)
    build = time.process_time() - start
    for ef in (16, 32, 64, 128):
        graph.set_ef(ef)
        note(f"hnswlib M16 ef {ef}", lambda q: graph.knn_query(q, k=K)[0], build)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
