"""A Pipeline is named stages in one config; each stage reads what others wrote.

A field of a stage that holds "@encoder/items.npz" means that file of stage `encoder`. A stage is done when its
folder says so for exactly its config and the configs of all it hangs on; a changed stage gets a new folder, so
that nothing is overwritten and going back costs nothing.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import chz

from data.errors import UserError
from train.experiment import Experiment
from train.snapshot import dump, fingerprint, load
from train.workdir import Workdir, write_json

Say = Callable[[str], None]
Results = dict[str, Any]

DONE, SUMMARY = "done.json", "stages.json"


@chz.chz
class Stage:
    """One step of a pipeline."""

    def run(self, *, out: Path, say: Say) -> Results:
        """Does the work into folder `out`, which may hold an interrupted attempt, and returns its figures."""
        raise NotImplementedError(f"{type(self).__name__} does not define run")

    def among(self, stages: Collection[str]) -> "Stage | None":
        """What is left of this stage, which nobody asked for by name, where only `stages` run; None: nothing."""
        return None


@chz.chz
class Train(Stage):
    """Trains an experiment; the stage's folder is its workdir.

    Its results are those of the best evaluation, where the experiment names a metric to go by (see `Experiment`).
    """

    experiment: Experiment

    def run(self, *, out: Path, say: Say) -> Results:
        from train.loop import train  # the loop is heavy and a pipeline is read without it

        outcome = train(self.experiment, workdir=out, say=say)
        if outcome.stopped:
            raise Interrupted(f"stopped at step {outcome.step} of {self.experiment.steps}")
        return outcome.results()


@chz.chz
class Compare(Stage):
    """A table of chosen figures of earlier stages, and what each row gained over the first."""

    title: str
    rows: Mapping[str, str] = chz.field(doc="label to stage, written as @stage")
    metrics: tuple[str, ...] = chz.field(doc="figures of those stages, such as test/cold/auc")

    def among(self, stages: Collection[str]) -> "Compare | None":
        rows = {label: of for label, of in self.rows.items() if set(references(of)) <= set(stages)}
        return chz.replace(self, rows=rows) if rows else None

    def run(self, *, out: Path, say: Say) -> Results:
        figures = {
            label: json.loads((Path(folder) / DONE).read_text())["results"] for label, folder in self.rows.items()
        }
        for label, found in figures.items():
            for metric in self.metrics:
                if metric not in found:
                    raise UserError(
                        f"stage of row {label!r} has no figure {metric!r}; it has {', '.join(sorted(found))}"
                    )
        first = next(iter(figures))
        say(self.title)
        width = max(map(len, figures))
        say(" " * width + "".join(f"  {m:>18}" for m in self.metrics))
        for label, found in figures.items():
            cells = []
            for metric in self.metrics:
                gain = found[metric] - figures[first][metric]
                cells.append(f"{found[metric]:.4f}" + ("" if label == first else f" ({gain:+.4f})"))
            say(f"{label:<{width}}" + "".join(f"  {c:>18}" for c in cells))
        return {f"{label}/{metric}": found[metric] for label, found in figures.items() for metric in self.metrics}


@chz.chz
class Pipeline:
    stages: Mapping[str, Stage] = chz.field(doc="by name; each runs after those that it refers to")

    @chz.validate
    def _references_resolve(self):
        self.order()

    def order(self) -> list[str]:
        """Names of the stages, each after those that it refers to."""
        waiting = {name: references(dump(stage)) for name, stage in self.stages.items()}
        for name, others in waiting.items():
            for other in others:
                if other not in waiting:
                    near = get_close_matches(other, waiting, n=1)
                    hint = f"; did you mean @{near[0]}?" if near else ""
                    raise ValueError(f"stage {name!r} refers to @{other}, but no stage is called that{hint}")
        order: list[str] = []
        while waiting:
            ready = [name for name, others in waiting.items() if set(others) <= set(order)]
            if not ready:
                raise ValueError(f"stages {', '.join(waiting)} refer to one another in a circle")
            order.append(ready[0])
            del waiting[ready[0]]
        return order

    def only(self, names: Iterable[str]) -> "Pipeline":
        """These stages with what they need, and the rows of theirs in the tables of the pipeline."""
        kept: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self.stages:
                near = get_close_matches(name, self.stages, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.stages)}"
                raise UserError(f"no stage is called {name!r}; {hint}")
            kept.add(name)
            waiting += [other for other in references(dump(self.stages[name])) if other not in kept]
        left = {name: s if name in kept else s.among(kept) for name, s in self.stages.items()}
        return Pipeline(stages={name: stage for name, stage in left.items() if stage is not None})


class Interrupted(Exception):
    """A stage was asked to stop and saved what it had."""


def run_pipeline(pipeline: Pipeline, *, workdir: Path, say: Say = print) -> dict[str, Results]:
    """Runs what is not done, in order, and returns the figures of every stage."""
    with Workdir(workdir) as root:
        root.write_config(dump(pipeline))
        return _run_stages(pipeline, workdir=root.path, say=say)


def _run_stages(pipeline: Pipeline, *, workdir: Path, say: Say) -> dict[str, Results]:
    marks: dict[str, str] = {}
    folders: dict[str, Path] = {}
    figures: dict[str, Results] = {}
    summary: list[dict[str, Any]] = []
    for position, name in enumerate(pipeline.order(), start=1):
        stage = pipeline.stages[name]
        stored = dump(stage)
        marks[name] = fingerprint([stored, {other: marks[other] for other in references(stored)}])
        out = folders[name] = workdir / f"{name}-{marks[name]}"
        head = f"[{position}/{len(pipeline.stages)}] {name}"
        if (out / DONE).is_file():
            record = json.loads((out / DONE).read_text())
            say(f"{head}: done before, skipped")
            status = "skipped"
        else:
            say(f"{head}: {type(stage).__name__}")
            out.mkdir(exist_ok=True)
            begun = time.perf_counter()
            results = load(_with_folders(stored, folders)).run(out=out, say=lambda line: say(f"    {line}"))
            record = {"seconds": round(time.perf_counter() - begun, 2), "results": results}
            write_json(out / DONE, value=record)
            status = "ran"
            say(f"{head}: {record['seconds']:.1f} s")
        _point(workdir / name, out)
        figures[name] = record["results"]
        summary.append({"name": name, "kind": type(stage).__name__, "status": status, "folder": out.name, **record})
        write_json(workdir / SUMMARY, value=summary)
    return figures


def references(stored: Any) -> list[str]:
    """Names of the stages that a stored stage refers to, in order of appearance."""
    if isinstance(stored, str):
        return [stored[1:].split("/")[0]] if stored.startswith("@") else []
    values = stored.values() if isinstance(stored, dict) else stored if isinstance(stored, list) else ()
    found = [name for value in values for name in references(value)]
    return list(dict.fromkeys(found))


def _with_folders(stored: Any, folders: Mapping[str, Path]) -> Any:
    if isinstance(stored, str) and stored.startswith("@"):
        name, _, rest = stored[1:].partition("/")
        return str(folders[name] / rest)
    if isinstance(stored, dict):
        return {k: _with_folders(v, folders) for k, v in stored.items()}
    if isinstance(stored, list):
        return [_with_folders(v, folders) for v in stored]
    return stored


def _point(link: Path, target: Path) -> None:
    """`link` leads to the folder of the stage's present config."""
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.name)
