"""Fits a calibration to a trained workdir on held-out rows and shows what it does to other held-out rows."""

import json
from pathlib import Path
from typing import Literal

import chz
import jax
import numpy as np
from jax.sharding import AxisType

from data.errors import UserError
from data.pipeline import VALID, Loader
from data.sources import SourceConfig
from train import calibration as maps
from train.calibration import Calibration, Method
from train.checkpoint import load_weights, sound_step
from train.evaluators import Evaluate
from train.experiment import Experiment, load_experiment
from train.metrics.base import Curve, Metric, column
from train.metrics.calibration import ECE
from train.metrics.point import LogLoss
from train.pipeline import Results, Say, Stage
from train.program import Program, make_predict
from train.report_charts import Chart, Series, draw
from train.report_page import page, table
from train.snapshot import dump, load
from train.workdir import CHECKPOINTS, FEATURES, write_json

FILE = "calibration.json"
BATCH = 8192


@chz.chz
class Calibrate(Stage):
    """Writes `calibration.json`, which an Export stage takes as "@<this stage>/calibration.json"."""

    of: str = chz.field(doc="workdir of a training run, such as @tower")
    source: SourceConfig | None = chz.field(default=None, doc="held-out rows; default: those of evaluator `valid`")
    method: Method = "temperature"
    score: str = chz.field(default="score", doc="the prediction that is calibrated")
    label: str | None = chz.field(default=None, doc="what it predicts; default: the task's label")

    def run(self, *, out: Path, say: Say) -> Results:
        return calibrate(
            Path(self.of),
            output=out / FILE,
            source=self.source,
            method=self.method,
            score=self.score,
            label=self.label,
            say=say,
        )


def calibrate(
    workdir: Path,
    *,
    output: Path,
    source: SourceConfig | None = None,
    method: Method = "temperature",
    step: int | Literal["best", "latest"] = "best",
    score: str = "score",
    label: str | None = None,
    seed: int = 0,
    say: Say = print,
) -> Results:
    """Fits on a random half of the rows, measures on the other half before and after, and keeps the fitted map.

    Writes `output` and, beside it, a page with the reliability plot.
    """
    experiment = load_experiment(workdir)
    label = label or _label(experiment)
    number = sound_step(workdir / CHECKPOINTS, step=step)
    scores, labels = _scored(workdir, experiment, step=number, source=source, score=score, label=label)
    first = np.random.default_rng(seed).random(len(scores)) < 0.5
    fitted = maps.fit(method, score=scores[first], label=labels[first])
    rest, truth = scores[~first], labels[~first]
    after = np.asarray(jax.jit(fitted.apply)(rest))
    figures: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    for when, values in (("before", rest), ("after", after)):
        found, curves[when] = _measured(values, truth)
        figures |= {f"{when}/{name}": value for name, value in found.items()}
    stored = {
        "calibration": dump(fitted),
        "workdir": workdir.name,
        "step": number,
        "score": score,
        "fitted_rows": int(first.sum()),
        "measured_rows": int((~first).sum()),
        "figures": figures,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, value=stored)
    output.with_suffix(".html").write_text(_page(method, stored=stored, curves=curves))
    say(
        f"{method} fitted on {stored['fitted_rows']:,} rows; on {stored['measured_rows']:,} others "
        f"ECE {figures['before/ece']:.4f} -> {figures['after/ece']:.4f}, "
        f"log loss {figures['before/logloss']:.4f} -> {figures['after/logloss']:.4f}"
    )
    return figures


def read_calibration(path: Path, *, step: int, workdir: Path) -> tuple[str, Calibration]:
    """The score that a file calibrates, and its map; one fitted to other weights is refused."""
    if not path.is_file():
        raise UserError(f"{path} is no calibration; python -m serve calibrate {workdir} writes one")
    stored = json.loads(path.read_text())
    if not isinstance(stored, dict) or "calibration" not in stored:
        raise UserError(f"{path} is no calibration: it has no field 'calibration'")
    if stored["step"] != step:
        raise UserError(
            f"{path} was fitted to step {stored['step']}, the export is of step {step}: "
            f"run python -m serve calibrate {workdir} --step {step}"
        )
    fitted = load(stored["calibration"])
    if not isinstance(fitted, Calibration):
        raise UserError(f"{path} holds a {type(fitted).__name__}, not a calibration")
    return str(stored["score"]), fitted


def _label(experiment: Experiment) -> str:
    label = getattr(experiment.task, "label", None)
    if not isinstance(label, str):
        raise UserError(f"{type(experiment.task).__name__} has no single label: say which one the score predicts")
    return label


def _scored(
    workdir: Path, experiment: Experiment, *, step: int, source: SourceConfig | None, score: str, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of every row of the source."""
    evaluator = experiment.evals.get("valid")
    if source is None:
        if not isinstance(evaluator, Evaluate):
            raise UserError(f"{workdir} has no evaluator 'valid': name the source of held-out rows")
        source = evaluator.source
    features = load(json.loads((workdir / FEATURES).read_text()))
    one = jax.local_devices()[:1]
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=one)
    program = Program(experiment, features=features, mesh=mesh)
    predict = make_predict(program, program.weights(load_weights(workdir / CHECKPOINTS, step=step)))
    transforms = evaluator.transforms if isinstance(evaluator, Evaluate) else ()
    scores, labels = [], []
    for batch in Loader(batch_size=BATCH, transforms=transforms).once(source.make()):
        keep = column(batch, VALID).astype(bool)
        scores.append(np.asarray(column(predict(batch), score, what="predictions"))[keep])
        labels.append(column(batch, label)[keep].astype(np.float64))
    if not scores:
        raise UserError(f"{type(source).__name__} has no rows to calibrate on")
    return np.concatenate(scores), np.concatenate(labels)


def _measured(score: np.ndarray, label: np.ndarray) -> tuple[dict[str, float], Curve]:
    """Expected calibration error and log loss, and the points of a reliability plot."""
    metrics: tuple[Metric, ...] = (ECE(label="label"), LogLoss(label="label"))
    figures: dict[str, float] = {}
    curve: Curve = {}
    for metric in metrics:
        accumulator = metric.make()
        accumulator.update({"score": score}, {"label": label})
        figures |= accumulator.compute()
        curve = accumulator.curves().get("ece", curve)
    return figures, curve


def _page(method: Method, *, stored: dict, curves: dict[str, Curve]) -> str:
    top = min(1.0, 1.05 * max(max([*c["x"], *c["y"]]) for c in curves.values()))  # type: ignore[misc]
    series = [Series(when, c["x"], c["y"], dots=True) for when, c in curves.items()]  # type: ignore[arg-type]
    series.append(Series("calibrated", (0.0, top), (0.0, top), dashed=True))
    chart = Chart(
        "Reliability", series, "mean prediction", "share of positives", x_range=(0.0, top), y_range=(0.0, top)
    )
    names = dict.fromkeys(name.split("/", 1)[1] for name in stored["figures"])
    rows = [(n, *(f"{stored['figures'][f'{when}/{n}']:.5f}" for when in curves)) for n in names]
    return page(
        title=f"Calibration: {method}",
        subtitle=f"{stored['workdir']}, step {stored['step']}: fitted on {stored['fitted_rows']:,} rows, "
        f"measured on {stored['measured_rows']:,} others",
        body=f'<div class="charts">{draw(chart)}</div>' + table(("", *curves), rows),
    )
