"""Minutes of load on one server, with hot swaps, updates of its index and bad requests mixed in.

    python -m tests.benchmarks.soak [--minutes 30] [--json tests/benchmarks/soak.json]

DIN and requests of tests/benchmarks/online.py, a live index beside it. Counts good requests that failed (goal: 0) and
bad ones that were answered otherwise than documented, and follows the memory of the server (goal: flat). All traffic is
to 127.0.0.1 and ends by itself.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.http_load import Body, Connection, Load, Report, as_bytes
from tests.benchmarks.online import NAME, bodies, write_artifact

ITEMS, DIM = 20_000, 32
GOOD_RATE = 20.0
"""A second; moderate, since the machine is shared with the load."""


def prepared(work: Path) -> list[str]:
    """Two versions of the tower, which `latest` will name in turns, and a live index."""
    from serve.index.build import build_live

    versions = [write_artifact(work / "export", seed=seed).name for seed in (1, 2)]
    vectors = np.random.default_rng(0).normal(size=(ITEMS, DIM)).astype(np.float32)
    with build_live(vectors, ids=np.arange(ITEMS), model="m", merge_by_itself=False) as live:
        live.save(work / "index")
    return versions


def started(work: Path) -> tuple[subprocess.Popen, int]:
    words = ["up", str(work / "export"), "--index", str(work / "index"), "--name", NAME, "--port", "0"]
    flags = ["--watch", "0.5", "--max-batch", "512", "--body-seconds", "2"]
    child = subprocess.Popen([sys.executable, "-m", "serve", *words, *flags], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if "http://" in line:
            return child, int(line.rsplit(":", 1)[1])
    raise SystemExit(f"the server did not start: exit code {child.wait()}")


def wrong(rng: random.Random) -> tuple[Body, set[int]]:
    """A bad request and the statuses that are documented for it."""
    path, _, good = bodies("rank", count=1)[0]
    asked = json.loads(good)
    match rng.randrange(7):
        case 0:
            return (path, {}, good[: rng.randrange(len(good))]), {400}
        case 1:
            columns = {name: values[:1] * 10_000 for name, values in asked["candidates"].items()}
            return (path, {}, json.dumps({**asked, "candidates": columns}).encode()), {413}
        case 2:
            prices = [float("nan")] * len(asked["candidates"]["price"])
            columns = {**asked["candidates"], "price": prices}
            return (path, {}, json.dumps({**asked, "candidates": columns}).encode()), {422}
        case 3:
            return (path, {}, json.dumps({**asked, "user": {**asked["user"], "user": -7}}).encode()), {422}
        case 4:
            return ("/v2/models/other/infer", {}, b"{}"), {404}
        case 5:
            return ("/v1/retrieve", {}, json.dumps({"vector": [1.0] * (DIM + 1)}).encode()), {400}
        case _:
            return ("/v1/items", {}, json.dumps({"ids": ["text"], "vectors": [[0.0] * DIM]}).encode()), {400}


def updates(rng: random.Random) -> Body:
    ids = rng.sample(range(2 * ITEMS), 20)
    if rng.random() < 0.3:
        return "/v1/items/delete", {}, json.dumps({"ids": ids}).encode()
    vectors = [[rng.gauss(0, 1) for _ in range(DIM)] for _ in ids]
    return "/v1/items", {}, json.dumps({"ids": ids, "vectors": vectors}).encode()


def search(rng: random.Random) -> Body:
    return "/v1/retrieve", {}, json.dumps({"vector": [rng.gauss(0, 1) for _ in range(DIM)], "k": 20}).encode()


class Soak:
    def __init__(self, work: Path, *, port: int, pid: int, versions: list[str]):
        self.work, self.port, self.pid, self.versions = work, port, pid, versions
        self.good: dict[str, Report] = {}
        self.bad: Counter[str] = Counter()
        self.memory: list[tuple[float, int]] = []
        self.turns = 0

    async def run(self, *, seconds: float, swap_every: float) -> None:
        self.begun = time.perf_counter()
        self.end = self.begun + seconds
        rank = Load(self.port, bodies("rank", count=16))
        await asyncio.gather(
            self._rank(rank, seconds=seconds),
            self._often("retrieve", search, pause=0.1),
            self._often("update", updates, pause=0.25),
            self._wrong(),
            self._stalls(),
            self._swaps(swap_every),
            self._watch(),
        )

    async def _rank(self, load: Load, *, seconds: float) -> None:
        self.good["rank"] = await load.open(rate=GOOD_RATE, seconds=seconds)

    async def _often(self, name: str, make: Any, *, pause: float) -> None:
        report, rng, connection = self.good.setdefault(name, Report()), random.Random(name), Connection(self.port)
        while time.perf_counter() < self.end:
            begun = time.perf_counter()
            try:
                report.add(await connection.ask(as_bytes(make(rng))), time.perf_counter() - begun)
            except (OSError, asyncio.IncompleteReadError):
                report.broken += 1
                connection.close()
            await asyncio.sleep(pause)

    async def _wrong(self) -> None:
        rng = random.Random(1)
        while time.perf_counter() < self.end:
            body, documented = wrong(rng)
            connection = Connection(self.port)
            try:
                status = await connection.ask(as_bytes(body))
                self.bad["as documented" if status in documented else f"{status}, not {sorted(documented)}"] += 1
            except (OSError, asyncio.IncompleteReadError):
                self.bad["broken"] += 1
            connection.close()
            await asyncio.sleep(0.2)

    async def _stalls(self) -> None:
        """Clients that send half a body and go away, or stay."""
        stay = False
        while time.perf_counter() < self.end:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(as_bytes(("/v1/rank", {}, b" " * 5000))[:-2000])
            if stay:
                line = await reader.readline()
                self.bad["as documented" if b" 408 " in line else f"stalled: {line[:40]!r}"] += 1
            writer.close()
            stay = not stay
            await asyncio.sleep(1)

    async def _swaps(self, every: float) -> None:
        from serve.versions import point

        while time.perf_counter() + every < self.end:
            await asyncio.sleep(every)
            self.turns += 1
            point(self.work / "export", name=self.versions[self.turns % 2])

    async def _watch(self) -> None:
        while time.perf_counter() < self.end:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            (held,) = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
            self.memory.append((time.perf_counter() - self.begun, held))
            await asyncio.sleep(1)

    def result(self) -> dict[str, Any]:
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode().splitlines()
        tenths = np.array_split([held for _, held in self.memory], 10)
        mib = [round(statistics.median(part.tolist()) / 1024, 1) for part in tenths if len(part)]
        return {
            "good": {
                name: {
                    "asked": len(r.latencies) + r.broken,
                    "failed": r.failed,
                    "statuses": r.statuses,
                    "broken": r.broken,
                    "p50_ms": round(1e3 * r.percentiles(50)[0], 1),
                    "p99_ms": round(1e3 * r.percentiles(99)[0], 1),
                }
                for name, r in self.good.items()
            },
            "failed_good_requests": sum(r.failed for r in self.good.values()),
            "bad": dict(self.bad),
            "turns_of_latest": self.turns,
            "swaps": {line.split('"')[1]: float(line.split()[-1]) for line in metrics if "adloom_swaps_total{" in line},
            "rss_mib_by_tenth": mib,
            "rss_last_over_third_tenth": round(mib[-1] / mib[2], 3) if len(mib) == 10 else None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--swap-every", type=float, default=15.0, help="seconds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        versions = prepared(Path(scratch))
        child, port = started(Path(scratch))
        try:
            soak = Soak(Path(scratch), port=port, pid=child.pid, versions=versions)
            asyncio.run(soak.run(seconds=60 * args.minutes, swap_every=args.swap_every))
            found = soak.result()
        finally:
            child.terminate()
            code = child.wait(60)
    result = {"benchmark": "soak", "minutes": args.minutes, "cpus": os.cpu_count(), **found, "exit_code": code}
    result["load_average"] = round(os.getloadavg()[1], 1)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
