"""kill -9 at random steps, resume each time: are the final parameters those of the undisturbed run, to the bit?

python -m tests.benchmarks.kill_resume [--kills 20] [--steps 200] [--json FILE]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from train.checkpoint import load_weights
from train.log import read_metrics

ROOT = Path(__file__).resolve().parents[2]


def command(workdir: Path, *, steps: int) -> list[str]:
    return [
        *(sys.executable, "-m", "train", "configs/dnn_mall.py", "--workdir", str(workdir)),
        *(f"steps={steps}", "checkpoint.every=5", "log.every=1", "log.progress=none"),
        *("source.mall.size=tiny", "loader.batch_size=256", "evals.valid.source.mall.size=tiny"),
    ]


def last_step(workdir: Path) -> int:
    records = read_metrics(workdir)
    return records[-1]["step"] if records else 0


def run_and_kill(workdir: Path, *, steps: int, at: int) -> int:
    """Starts the run and kills it once it has passed step `at`. The last step it logged."""
    process = subprocess.Popen(command(workdir, steps=steps), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and last_step(workdir) < at:
        time.sleep(0.01)
    if process.poll() is not None:
        raise RuntimeError(f"the run ended by itself with {process.returncode} before step {at}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    return last_step(workdir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    targets = sorted(draw.sample(range(2, args.steps - 5), args.kills))
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        subprocess.run(command(whole, steps=args.steps), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        killed = []
        for at in targets:
            killed.append(run_and_kill(broken, steps=args.steps, at=at))
            print(f"killed after step {killed[-1]}", file=sys.stderr, flush=True)
        subprocess.run(command(broken, steps=args.steps), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        a, b = (load_weights(w / "checkpoints", step="latest") for w in (whole, broken))
    same = all(np.array_equal(a[part][n], b[part][n]) for part in a for n in a[part])
    result = {"benchmark": "kill_resume", "kills": killed, "steps": args.steps, "bit_equal": bool(same)}
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result) + "\n")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
