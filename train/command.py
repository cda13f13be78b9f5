"""From a config file and overrides to a run: what `python -m train` does once its words are parsed."""

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import chz
from chz.blueprint import (
    ConstructionException,
    EntrypointHelpException,
    ExtraneousBlueprintArg,
    InvalidBlueprintArg,
    MissingBlueprintArg,
)

from data.errors import UserError
from train.experiment import Experiment
from train.pipeline import Interrupted, Pipeline, run_pipeline
from train.snapshot import dump, load

Config = Experiment | Pipeline

# ValueError and TypeError come from a config's own validators.
REFUSALS = (
    ConstructionException,
    ExtraneousBlueprintArg,
    InvalidBlueprintArg,
    MissingBlueprintArg,
    ValueError,
    TypeError,
)


def read_config(path: Path, overrides: list[str]) -> Config:
    """The config that a file's get_config() returns, with dotted overrides applied and type-checked."""
    base = _get_config(path)
    values = _flat(base)
    for name, _, value in (override.partition("=") for override in overrides):
        # Another class in a place starts from its own defaults, not from the fields of the one before it.
        if isinstance(values.get(name), type) and value != values[name].__name__:
            values = {n: v for n, v in values.items() if not n.startswith(f"{name}.")}
    blueprint = chz.Blueprint[Config](type(base)).apply(values)
    try:
        made = blueprint.make_from_argv(overrides)
    except REFUSALS as error:
        raise UserError(f"{path}: {_one_line(error)}") from error
    return load(_in_order(dump(made), like=dump(base)))


def _flat(config: Config) -> dict[str, Any]:
    """Dotted name of every field to its value. A mapping whose keys hold dots, as a search space does, stays whole."""
    values = chz.beta_to_blueprint_values(config)
    for name, mapping in _dotted(config):
        values = {n: v for n, v in values.items() if not n.startswith(f"{name}.")} | {name: mapping}
    return values


def _dotted(part: Any, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Mappings with a dot in a key, by the name of their field."""
    if isinstance(part, Mapping) and any("." in str(key) for key in part):
        yield name, part
        return
    if chz.is_chz(part):
        inner = {field: getattr(part, field) for field in chz.chz_fields(part)}
    elif isinstance(part, Mapping):
        inner = {str(key): value for key, value in part.items()}
    elif isinstance(part, tuple | list):
        inner = {str(k): value for k, value in enumerate(part)}
    else:
        return
    for key, value in inner.items():
        yield from _dotted(value, f"{name}.{key}" if name else key)


def _in_order(stored: Any, *, like: Any) -> Any:
    """Keys of mappings as the file has them, new ones last: chz gives them in another order in every process."""
    if isinstance(stored, dict):
        known = like if isinstance(like, dict) else {}
        keys = [key for key in known if key in stored] + sorted(key for key in stored if key not in known)
        return {key: _in_order(stored[key], like=known.get(key)) for key in keys}
    if isinstance(stored, list):
        others = like if isinstance(like, list) and len(like) == len(stored) else [None] * len(stored)
        return [_in_order(part, like=other) for part, other in zip(stored, others, strict=True)]
    return stored


def only(config: Config, stages: list[str]) -> Pipeline:
    """The pipeline cut to these stages."""
    if not isinstance(config, Pipeline):
        raise UserError("--only names stages of a pipeline, and this config is one training run")
    return config.only(stages)


def help_text(config: Config) -> str:
    try:
        chz.Blueprint(type(config)).apply(_flat(config)).make_from_argv(["--help"])
    except EntrypointHelpException as text:
        return str(text)
    raise RuntimeError("chz printed no help")


def describe(config: Config) -> str:
    """The resolved config, a field a line, as it could be given back on the command line."""
    lines = []
    for name, value in _flat(config).items():
        if isinstance(value, type):
            value = value.__name__
        elif isinstance(value, tuple) and all(isinstance(v, (int, float, str)) for v in value):
            value = ",".join(map(str, value))
        lines.append(f"{name}={value}")
    return "\n".join(lines)


def run_config(config: Config, *, workdir: Path, fork: Path | None = None) -> int:
    """Trains, reports and says where everything lies. The exit code."""
    import jax

    from train.distributed import barrier
    from train.loop import train
    from train.report import write_pipeline_report, write_report
    from train.workdir import Workdir

    if isinstance(config, Pipeline):
        if fork is not None:
            raise UserError("a pipeline needs no --fork: a changed stage gets a folder of its own")
        try:
            run_pipeline(config, workdir=workdir, say=_say)
        except Interrupted as stop:
            _say(f"{stop}; the same command goes on")
            return 0
        _say(f"report: {write_pipeline_report(workdir)}")
        return 0
    if fork is not None:
        if jax.process_index() == 0:
            with Workdir(workdir) as original, original.fork(fork) as copy:
                copy.write_config(dump(config))
        barrier("fork")
        workdir = fork
    outcome = train(config, workdir=workdir, say=_say)
    if jax.process_index() != 0:
        return 0
    if not outcome.finished:
        _say(f"stopped and saved at step {outcome.step} of {config.steps}; the same command goes on")
        return 0
    best = outcome.best
    if best is not None:
        _say(f"{'':<32} {f'best, {best.step}':>14} {f'last, {outcome.step}':>14}")
    for name in sorted({*outcome.metrics, *(best.metrics if best is not None else {})}):
        shown = (outcome.metrics,) if best is None else (best.metrics, outcome.metrics)
        _say(f"{name:<32} " + " ".join(f"{m[name]:>14.5f}" if name in m else f"{'':>14}" for m in shown).rstrip())
    for name, value in sorted(outcome.speed.items()):
        _say(f"{name:<32} {value:>14,.{0 if value >= 1000 else 2}f}")
    _say(f"report: {write_report(workdir)}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _get_config(path: Path) -> Config:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        near = get_close_matches(path.name, [p.name for p in folder.glob("*.py")], n=1)
        raise UserError(f"no config file {path}" + (f"; did you mean {folder / near[0]}?" if near else ""))
    root = Path(__file__).resolve().parent.parent
    inside = path.resolve().is_relative_to(root)
    name = ".".join(path.resolve().relative_to(root).with_suffix("").parts) if inside else f"configs.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}") from error
    except ImportError as error:
        raise UserError(f"{path}: {error}") from error
    make = getattr(module, "get_config", None)
    if make is None:
        raise UserError(f"{path} defines no get_config()")
    config = make()
    if not isinstance(config, (Experiment, Pipeline)):
        raise UserError(f"{path}: get_config() returned a {type(config).__name__}, not an Experiment or Pipeline")
    json.dumps(dump(config))  # what cannot be stored is refused before anything runs
    return config


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("Append --help", "No param found", "- ")))[:400]
