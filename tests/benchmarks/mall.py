"""Build times of the malls in memory, and peak memory of a mall on disk at 1 and at 10 million impressions.

    python -m tests.benchmarks.mall [--large]

Prints JSON. Each figure comes from a fresh process. --large writes 1 M listings with 10 k and with 100 k users to a
temporary folder (1.3 GB) and takes some minutes.
"""

import json
import subprocess
import sys
import tempfile

BUILD = """
import json, time
from data.mall.build import after, build
from data.mall.config import Mall
from data.mall.sources import MallClicks
mall, begun = Mall(size="{size}"), time.perf_counter()
build(mall); core = time.perf_counter() - begun
after(mall); whole = time.perf_counter() - begun
print(json.dumps({{"log_s": round(core, 2), "with_purchases_and_auctions_s": round(whole, 2)}}))
"""
WRITE = """
import json, resource, time
from data.mall.config import Mall
from data.mall.write import write
begun = time.perf_counter()
rows = write(Mall(size="large", users={users}), out={out!r})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
spent = round(time.perf_counter() - begun)
print(json.dumps({{"impressions": rows["log/impressions"], "s": spent, "peak_mib": round(peak)}}))
"""


def fresh(code: str) -> dict:
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main(large: bool) -> dict:
    figures: dict = {size: fresh(BUILD.format(size=size)) for size in ("tiny", "small", "default")}
    for users in (10_000, 100_000) if large else ():
        with tempfile.TemporaryDirectory() as folder:
            figures[f"large, {users} users"] = fresh(WRITE.format(users=users, out=folder))
    return figures


if __name__ == "__main__":
    print(json.dumps(main("--large" in sys.argv), indent=1))
