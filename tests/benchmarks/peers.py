"""Training and scoring rates beside the PyTorch zoo's: same model, rows, batch, threads and machine, in turns.

    python -m tests.benchmarks.peers --peer PYTHON --zoo FuxiCTR/model_zoo [--json FILE] [--only A,B] [--threads 1]

PYTHON is an interpreter with torch and fuxictr (`pip install torch fuxictr`), and the folder is that of the zoo's
repository. Both sides keep their batches in memory; `with_input` reads them from a file in one shuffled pass as well.
A round is a few steps of ours, then as many of theirs; `ratio` is the median of rounds, with the lowest and highest.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from train.__main__ import prepare_environment

BATCHES = 4
Timed = dict[str, float]


class Peer:
    """The peer's process, started by `words`, which answers one request a line."""

    def __init__(self, *words: str, threads: int):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.about = self.ask("about", threads=threads)

    def ask(self, action: str, **values: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print(json.dumps({"do": action, **values}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended at {action!r} with status {self.process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """One of our programs on one device, its state and its batches."""

    def __init__(self, case, *, batches: list[dict[str, np.ndarray]]):
        import jax

        from train.program import Program
        from train.sharding import Mesh, put_batch

        self.jax, self.put, self.case = jax, put_batch, case
        self.mesh = Mesh().make(devices=jax.devices()[:1])
        with jax.set_mesh(self.mesh):
            self.program = Program(case.experiment(), features=case.features(), mesh=self.mesh)
            self.state = self.program.init(0)
            self.batches = [put_batch(batch, mesh=self.mesh) for batch in batches]
            inputs = case.features().arrays(inputs_only=True)
            self.inputs = [{name: b[name] for name in inputs} for b in self.batches]

    def parameters(self) -> int:
        return sum(a.size for a in self.state["params"].values())

    def train(self, steps: int) -> Timed:
        with self.jax.set_mesh(self.mesh):
            return timed(self._train, steps)

    def _train(self, steps: int) -> None:
        for i in range(steps):
            self.state, logs = self.program.train_step(self.state, self.batches[i % BATCHES])
        self.jax.block_until_ready((self.state, logs))

    def score(self, steps: int) -> Timed:
        with self.jax.set_mesh(self.mesh):
            weights = self.jax.block_until_ready(self.program.weights(self.state))
            return timed(lambda n: [self._scores(weights, i) for i in range(n)], steps)

    def _scores(self, weights, i: int) -> np.ndarray:
        return np.asarray(self.program.predict(weights, self.inputs[i % BATCHES])["score"])

    def epoch(self, rows: Path) -> Timed:
        """One shuffled pass from a Parquet file to updated weights."""
        from data.parquet import Parquet
        from data.pipeline import Loader

        def run(_: int) -> None:
            source = Parquet(path=str(rows), features=self.case.features()).make()
            batches = Loader(batch_size=self.case.batch, epochs=1).open(source)
            for batch in batches:
                self.state, logs = self.program.train_step(self.state, self.put(batch, mesh=self.mesh))
            self.jax.block_until_ready((self.state, logs))
            batches.close()

        with self.jax.set_mesh(self.mesh):
            return timed(run, 1)


def timed(run: Callable[[int], Any], steps: int) -> Timed:
    cpu, wall = time.process_time(), time.perf_counter()
    run(steps)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def in_turns(
    ours: Callable[[int], Timed], theirs: Callable[[int], Timed], *, rows: int, args, peer: str = "zoo"
) -> dict[str, Any]:
    """Rates of both and their ratio, after a warm-up that also tells how many steps a round holds."""
    ours(1), theirs(1)
    steps = [max(1, min(200, round(args.seconds / side(1)["wall"]))) for side in (ours, theirs)]
    rounds = [(ours(steps[0]), theirs(steps[1])) for _ in range(args.rounds)]
    out: dict[str, Any] = {}
    for clock in ("wall", "cpu"):
        pairs = [(steps[0] * rows / o[clock], steps[1] * rows / t[clock]) for o, t in rounds]
        ratios = sorted(o / t for o, t in pairs)
        out[clock] = {
            "ours_rows_per_s": round(statistics.median(o for o, _ in pairs)),
            f"{peer}_rows_per_s": round(statistics.median(t for _, t in pairs)),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_low_high": [round(ratios[0], 2), round(ratios[-1], 2)],
        }
    return out | {"steps_a_round": steps}


def compare(case, *, zoo: Peer, work: Path, args) -> dict[str, Any]:
    data = case.rows(BATCHES * case.batch)
    shaped = {name: column.reshape(BATCHES, case.batch, *column.shape[1:]) for name, column in data.items()}
    np.savez(work / "batches.npz", **shaped)
    theirs = zoo.ask("open", case=case.to_zoo(), batches=str(work / "batches.npz"))
    ours = Ours(case, batches=[{n: column[i] for n, column in shaped.items()} for i in range(BATCHES)])
    result: dict[str, Any] = {
        "batch": case.batch,
        "parameters": {"ours": ours.parameters(), "zoo": theirs["parameters"]},
        "goal": {"train": case.goal[0], "score": case.goal[1]},
        "train": in_turns(ours.train, lambda n: zoo.ask("train", steps=n), rows=case.batch, args=args),
        "score": in_turns(ours.score, lambda n: zoo.ask("score", steps=n), rows=case.batch, args=args),
    }
    if case.name == "dnn":
        result["with_input"] = with_input(ours, case, zoo=zoo, work=work, args=args)
    zoo.ask("close")
    return result


def with_input(ours: Ours, case, *, zoo: Peer, work: Path, args) -> dict[str, Any]:
    """The same from files: Parquet through our loader, the zoo's npz through its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 16 * case.batch
    data = case.rows(count, seed=1)
    pq.write_table(pa.table(data), work / "rows.parquet")
    np.savez(work / "rows.npz", **data)
    return in_turns(
        lambda n: ours.epoch(work / "rows.parquet"),
        lambda n: zoo.ask("epoch", rows=str(work / "rows.npz"), batch=case.batch),
        rows=count,
        args=argparse.Namespace(seconds=0.0, rounds=max(1, args.rounds - 2)),
    )


def line(name: str, result: dict[str, Any]) -> str:
    parts = []
    for part in ("train", "score", "with_input"):
        if part in result:
            wall, cpu = result[part]["wall"], result[part]["cpu"]
            low, high = wall["ratio_low_high"]
            parts.append(
                f"{part} {wall['ours_rows_per_s']:,} / {wall['zoo_rows_per_s']:,} rows/s = {wall['ratio']:.2f} "
                f"({low:.2f}-{high:.2f}), cpu {cpu['ratio']:.2f}"
            )
    return f"{name}: " + "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python interpreter with torch and fuxictr")
    parser.add_argument("--zoo", type=Path, required=True, help="folder model_zoo of the zoo's repository")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="cases, separated by commas (default: all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processors both sides may use")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="length of one side's part of a round")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])  # the peer inherits it
    prepare_environment(distributed=False)

    from tests.benchmarks.peer_cases import CASES

    script = str(Path(__file__).with_name("peer_zoo.py"))
    zoo = Peer(args.peer, script, str(args.zoo.resolve()), threads=args.threads)
    out: dict[str, Any] = {"benchmark": "peers", "machine": platform.processor() or platform.machine(), **zoo.about}
    out |= {"load_average": round(os.getloadavg()[0], 1), "cases": {}}
    with tempfile.TemporaryDirectory() as work:
        for name in args.only.split(",") if args.only else CASES:
            out["cases"][name] = compare(CASES[name], zoo=zoo, work=Path(work), args=args)
            print(line(name, out["cases"][name]), flush=True)
            if args.json:
                args.json.write_text(json.dumps(out, indent=1) + "\n")
    zoo.end()


if __name__ == "__main__":
    main()
