"""An engine made by a process of its own, for an index that is searched meanwhile.

ScaNN lets other threads run while it builds its tree, but not while it writes it: all searches of the process would
wait for seconds. So the other process builds and writes, and this one opens the files, which takes a tenth of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from data.manifest import read_json, write_json
from serve.index.exact import Exact
from serve.index.plan import Made, Plan
from serve.index.scann_engine import FOLDER, Scann, open_scann

FROM = 32_768
"""Vectors from which the start of a process costs less than the wait."""
VECTORS, QUERIES, PLAN, MADE = "apart-vectors.npy", "apart-queries.npy", "apart-plan.json", "apart-made.json"


def make_apart(plan: Plan, vectors: np.ndarray, *, work: Path) -> Made:
    """What `plan.make` makes, by one thread elsewhere; a ScaNN engine's files lie in `work`."""
    np.save(work / VECTORS, vectors)
    if plan.queries is not None:
        np.save(work / QUERIES, plan.queries)
    write_json(work / PLAN, {"engine": plan.engine, "recall": plan.recall})
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "serve.index.apart", str(work)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(f"the process that builds the index ended with {done.returncode}: {' '.join(said[-3:])}")
    about = read_json(work / MADE)
    if about["engine"] != Scann.name:
        return Made(Exact(vectors), about)
    return Made(open_scann(work / FOLDER, about=about["settings"]), about)


def main(work: Path) -> None:
    queries = np.load(work / QUERIES) if (work / QUERIES).is_file() else None
    plan = Plan(**read_json(work / PLAN), queries=queries, threads=1)
    made = plan.make(np.load(work / VECTORS))
    if isinstance(made.engine, Scann):
        made.engine.save(work / FOLDER)
    write_json(work / MADE, made.about)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
