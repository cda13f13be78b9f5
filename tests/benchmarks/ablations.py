"""Does each system's idea move its figure the way its paper claims? Every variant, three seeds.

    python -m tests.benchmarks.ablations [--only din sasrec] [--seeds 0 1 2] [--json FILE] [--workdir DIR]

Prints a Markdown table and writes JSON, into which those of --only are merged. A run that is done in DIR is not run
again.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.ideas import ABLATIONS, Ablation
from tests.contract.cases import ROOT
from train.command import read_config
from train.loop import train
from train.pipeline import run_pipeline


def figure(words: str, *, seed: int, metric: str, workdir: Path) -> float:
    """The metric of a config with overrides, trained with one seed."""
    config, *overrides = words.split()
    config, _, stage = config.partition("@")
    name = "-".join([config, *overrides, str(seed)]).replace("/", "_")
    print(f"{words} seed {seed}", file=sys.stderr, flush=True)
    path, every = ROOT / "configs" / f"{config}.py", "...experiment." if stage else ""
    seeded = [f"{every}seed={seed}", f"{every}loader.seed={seed}"]
    resolved = read_config(path, [*overrides, *seeded])
    if stage:
        metrics = run_pipeline(resolved.only([stage]), workdir=workdir / name, say=lambda line: None)[stage]
    else:
        outcome = train(resolved, workdir=workdir / name, say=lambda line: None)
        if outcome.stopped:
            sys.exit(f"stopped at step {outcome.step}; the same command goes on")
        metrics = outcome.metrics
    if metric not in metrics:
        raise KeyError(f"{config} has no figure {metric!r}, but {', '.join(sorted(metrics))}")
    return metrics[metric]


def measure(ablation: Ablation, *, seeds: list[int], workdir: Path) -> dict:
    full, without = (
        [figure(words, seed=s, metric=ablation.metric, workdir=workdir) for s in seeds]
        for words in (ablation.full, ablation.without)
    )
    gaps = [a - b for a, b in zip(full, without, strict=True)]
    return {
        **dataclasses.asdict(ablation),
        "figures": full,
        "figures_without": without,
        "gain": statistics.mean(gaps),
        "spread": statistics.stdev(gaps) if len(gaps) > 1 else 0.0,
        "holds_on": sum(g > -ablation.within for g in gaps),
        "seeds": seeds,
    }


def table(results: dict[str, dict]) -> str:
    lines = ["| system | claim | figure | with | without | gain ± sd | holds on |", "|---|---|---|---|---|---|---|"]
    for name, r in results.items():
        with_, without = statistics.mean(r["figures"]), statistics.mean(r["figures_without"])
        claim = r["claim"] + (f", within {r['within']:g}" if r.get("within") else "")
        lines.append(
            f"| {name} | {claim} | {r['metric']} | {with_:.4f} | {without:.4f} (`{r['without']}`) "
            f"| {r['gain']:+.4f} ± {r['spread']:.4f} | {r['holds_on']} of {len(r['seeds'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ABLATIONS, default=list(ABLATIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, help="where runs lie; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = args.workdir or Path(folder)
        results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
        for name in args.only:
            results[name] = measure(ABLATIONS[name], seeds=args.seeds, workdir=workdir)
            print(table({name: results[name]}), flush=True)
            if args.json:
                # After each, in the order of ABLATIONS: an afternoon's runs may be stopped and gone on with.
                ordered = {n: results[n] for n in ABLATIONS if n in results}
                args.json.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
