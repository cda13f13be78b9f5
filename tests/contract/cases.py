"""Every config file, shrunk by rule: the same code paths at sizes that a test can afford."""

import copy
import dataclasses
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.command import read_config
from train.experiment import Experiment
from train.item_knowledge import Fills
from train.pipeline import Pipeline
from train.pipeline import Train as TrainStage
from train.program import Program
from train.sharding import Mesh, put_batch
from train.snapshot import dump, load

ROOT = Path(__file__).resolve().parents[2]
ROWS = 16
STEPS = 30
ENCODERS = ("modules.encoders.", "modules.content.")


def config_files() -> list[Path]:
    """Files of configs/ that define get_config."""
    return sorted(p for p in (ROOT / "configs").glob("*.py") if "def get_config" in p.read_text())


def shrunk(stored: Any) -> Any:
    """Tiny malls, small batches, short clips, few steps; models as they are, but for one block of each encoder."""
    if isinstance(stored, list):
        return [shrunk(v) for v in stored]
    if not isinstance(stored, dict):
        return stored
    out = {k: shrunk(v) for k, v in stored.items()}
    kind = out.get("$type", "")
    if kind == "data.mall.config:Mall":
        out["size"], out["seed"] = "tiny", 0  # a stage on another shop is no case of its own
    if isinstance(out.get("frames"), int):
        out["frames"] = 2
    if kind.startswith(ENCODERS) and isinstance(out.get("depth"), int):
        out["depth"] = 1  # a block compiles as long as the one before it
    if "batch_size" in out:
        out["batch_size"] = ROWS
    if isinstance(out.get("warmup_steps"), int):
        out["warmup_steps"] = min(out["warmup_steps"], STEPS)
    if "prefetch" in out:
        out["prefetch"] = 0
    if "buckets" in out:
        out["buckets"] = None  # an artefact takes the declared width, which a batch of short rows has not
    if kind == "train.experiment:Experiment":
        out["steps"] = STEPS
    return out


def resolved(path: Path) -> Any:
    return dump(read_config(path.relative_to(ROOT), []))


def experiments(path: Path) -> dict[str, Experiment]:
    """The experiments of a config file whose data need no earlier stage, shrunk."""
    config = load(shrunk(resolved(path)))
    if isinstance(config, Pipeline):
        stages = {n: s.experiment for n, s in config.stages.items() if isinstance(s, TrainStage)}
        return {f"{path.stem}:{n}": e for n, e in stages.items() if "@" not in json.dumps(dump(e))}
    return {path.stem: config}


def lacking(experiment: Experiment) -> list[str]:
    """Variables that its paths begin with and that are not set: its real data or weights are not here."""
    found = re.findall(r"\$(ADLOOM_\w+)", json.dumps(dump(experiment)))
    return sorted({name for name in found if not os.environ.get(name)})


def encodes(experiment: Experiment) -> bool:
    """Whether it trains a content encoder, whose step takes ten times a tower's to compile."""
    return any(f'"$type": "{module}' in json.dumps(dump(experiment.model)) for module in ENCODERS)


@dataclasses.dataclass
class Case:
    """One experiment opened on four devices, two by two, and on one."""

    name: str
    experiment: Experiment
    batch: dict[str, np.ndarray]
    on_four: Program
    on_one: Program

    @property
    def meshes(self):
        return self.on_four.mesh, self.on_one.mesh

    def inputs(self, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        return {n: copy.copy(self.batch[n][rows]) for f in self.on_one.features for n in f.arrays()}


@functools.lru_cache(maxsize=1)
def case(name: str, path: Path) -> Case:
    experiment = experiments(path)[name]
    batches = experiment.loader.open(experiment.source.make())
    batch = next(batches)
    batches.close()
    rules = experiment.mesh.rules
    four = Mesh(data=2, model=2, rules=rules).make()
    one = Mesh(data=1, model=1, rules=rules).make(devices=jax.devices()[:1])
    make = functools.partial(Program, experiment, features=batches.features)
    return Case(name, experiment, batch, make(mesh=four), make(mesh=one))


@functools.lru_cache(maxsize=1)
def trained(name: str, path: Path) -> dict[str, Any]:
    """The case after STEPS steps on its one batch, on four devices, with what it started from and the losses."""
    c = case(name, path)
    with jax.set_mesh(c.on_four.mesh):
        state = c.on_four.init(c.experiment.seed)
        if isinstance(c.experiment.init_from, Fills):  # without its lists a model has nothing to learn from
            state, _ = c.experiment.init_from.apply(state)
        start = jax.tree.map(lambda a: a.copy(), state)
        losses = []
        for _ in range(STEPS):
            state, logs = c.on_four.train_step(state, put_batch(c.batch, mesh=c.on_four.mesh))
            losses.append(float(logs["loss"]))
    return {"start": start, "state": state, "losses": losses}
