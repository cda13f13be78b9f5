"""Which config exports where, and how far each runtime's outputs are from the model's: the table of docs/export.md.

python -m tests.benchmarks.export_targets                            all configs; again: only those not in the JSON yet
python -m tests.benchmarks.export_targets --only dnn_mall,din_mall   these, anew
python -m tests.benchmarks.export_targets --tensorflow PYTHON        SavedModel too; an interpreter with TensorFlow
python -m tests.benchmarks.export_targets --table --page docs/export.md    writes what the JSON holds into the page

Configs on the tiny mall, as the contract tests shrink them, with the weights they begin with: operations and their
precision do not hang on either. Configs of real data need ADLOOM_DATA and are named where it is not set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_suffix(".json")
TARGETS = ("stablehlo", "onnx", "savedmodel")
BEGIN, END = "<!-- table -->", "<!-- /table -->"
LONGEST = 1800
"""Seconds that one config may take."""


def cases() -> dict[str, Path]:
    """Every experiment of a config that needs no earlier stage."""
    from tests.contract.cases import config_files, experiments

    return {name: path for path in config_files() for name in experiments(path)}


def distinct() -> list[str]:
    """One name of each: a stage that trains what a plain config trains has no line of its own."""
    from tests.contract.test_contract import CASES

    return sorted(CASES)


def child(name: str, *targets: str) -> dict[str, dict[str, Any]]:
    """Exports one config; the results are cells of its line."""
    import jax

    from data.errors import UserError
    from serve.trained import Served
    from tests.contract.cases import experiments
    from train.program import Program
    from train.sharding import Mesh

    experiment = experiments(cases()[name])[name]
    if "$ADLOOM_DATA" in repr(experiment) and "ADLOOM_DATA" not in os.environ:
        return {target: {"ok": None, "why": "its data are not here"} for target in targets}
    batches = experiment.loader.open(experiment.source.make())
    mesh = Mesh(data=1, model=1, rules=experiment.mesh.rules).make(devices=jax.devices()[:1])
    program = Program(experiment, features=batches.features, mesh=mesh)
    batches.close()
    with jax.set_mesh(mesh):
        weights = jax.device_get(program.weights(program.init(experiment.seed)))
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        begun = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as scratch:
                error = exported(Served(program, weights=weights), target=target, output=Path(scratch))
            found[target] = {"ok": True, "error": error, "seconds": round(time.perf_counter() - begun, 1)}
        except UserError as reason:
            found[target] = {"ok": False, "why": str(reason)}
    return found


def exported(model: Any, *, target: str, output: Path) -> float:
    """The largest difference found."""
    import numpy as np

    from serve.artifact import load
    from serve.export import export_model
    from serve.targets.base import target_of, write_target

    if target != "stablehlo":
        return write_target(model, target=target_of(target), output=output, step=0).error
    artifact = load(export_model(model, output=output, step=0))
    from safetensors.numpy import load_file

    stored = load_file(artifact.path / "selfcheck.safetensors")
    batch = {n.removeprefix("input/"): a for n, a in stored.items() if n.startswith("input/")}
    found, wanted = artifact(batch), model.forward(max_batch=64)(batch)
    floats = {n: a for n, a in wanted.items() if np.issubdtype(a.dtype, np.floating)}
    return max(float(np.max(np.abs(found[n] - a) / (1 + np.abs(a)), initial=0)) for n, a in floats.items())


def measured(name: str, targets: Sequence[str], *, python: str) -> dict[str, dict[str, Any]]:
    """In a process of its own: converters change jax as they work, and may take their process down."""
    code = "import json, sys; import tests.benchmarks.export_targets as t; print(json.dumps(t.child(*sys.argv[1:])))"
    words = [python, "-W", "ignore", "-c", code, name, *targets]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, env=environment)
    except subprocess.TimeoutExpired:
        return {target: {"ok": False, "why": f"not done after {LONGEST} s"} for target in targets}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        print(f"{name}: its process died, so it has no cell yet: {last}", file=sys.stderr)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: largest difference where it exports, a number of a footnote where it does not."""
    notes: list[str] = []

    def cell(result: dict[str, Any] | None) -> str:
        if result is None:
            return "not tried"
        if result["ok"]:
            return f"{result['error']:.0e}"
        if result["why"] not in notes:
            notes.append(result["why"])
        return (
            f"no ({notes.index(result['why']) + 1})" if result["ok"] is False else f"({notes.index(result['why']) + 1})"
        )

    lines = ["| config | StableHLO | ONNX | SavedModel |", "|---|---|---|---|"]
    for name, results in sorted(found.items()):
        lines.append(f"| `{name}` | " + " | ".join(cell(results.get(t)) for t in TARGETS) + " |")
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(notes, 1))])


def with_table(page: str, found: dict[str, dict[str, Any]]) -> str:
    """The page with this table between its marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise SystemExit(f"the page has no marks {BEGIN} and {END}")
    return f"{head}{begin}\n{table(found)}\n{end}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of configs or stages, measured anew")
    parser.add_argument("--targets", type=lambda text: text.split(","), default=None)
    parser.add_argument("--tensorflow", metavar="PYTHON", help="interpreter that has TensorFlow beside our packages")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--page", type=Path, help="Markdown file into which to write the table, between its marks")
    args = parser.parse_args()
    if unknown := sorted(set(args.only or ()) - set(cases())):
        parser.error(f"no config or stage {', '.join(unknown)}; there are {', '.join(sorted(cases()))}")
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"benchmark": "export_targets", "configs": {}}
    found = stored["configs"]
    if not args.table:
        here = args.targets or list(TARGETS if args.tensorflow else TARGETS[:2])
        for name in args.only or distinct():
            todo = [t for t in here if args.only or t not in found.get(name, {})]
            for python, group in (
                (sys.executable, [t for t in todo if t != "savedmodel"]),
                (args.tensorflow, [t for t in todo if t == "savedmodel"]),
            ):
                if group:
                    results = measured(name, group, python=python)
                    found.setdefault(name, {}).update(results)
                    print(name, results, file=sys.stderr, flush=True)
                    RESULTS.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    print(table(found))
    if args.page:
        args.page.write_text(with_table(args.page.read_text(), found))


if __name__ == "__main__":
    main()
