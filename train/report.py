"""`report.html`: what a run did, in one file that opens anywhere and fetches nothing.

Everything is read from the workdir, so a report can be made again at any time, while the run goes on or after it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from data.errors import UserError
from train.contact_sheet import SHEET
from train.evaluators import CURVES
from train.log import ENVIRONMENT, read_metrics
from train.report_charts import Chart, Series, draw, number
from train.report_page import folded, page, section, sheet, table, tiles

REPORT = "report.html"
TYPE = "$type"
LOWER = ("loss", "logloss", "ne", "brier", "ece", "rmse", "mae", "median_rank", "alignment", "uniformity")
UNJUDGED = ("ratio", "groups", "excluded_groups", "excluded_rows", "possible", "expected", "gini", "ties", "centre_gap")
DIFFERENCES = ("gap", "seen_gap")
WHOLE = ("train/rows_per_second", "train/seconds_per_epoch", "model/parameters")
NOT_EVALUATED = ("train/", "model/", "best/")
ACCOUNTS = ("targets_missing", "targets_in_history")


@dataclass(frozen=True)
class Section:
    """A part of a pipeline's report: prose, a table, or both."""

    title: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def write_report(workdir: Path) -> Path:
    """Writes the report of a training run and returns its path."""
    workdir = Path(workdir)
    config = _json(workdir / "config.json")
    records = read_metrics(workdir)
    if config is None and not records:
        raise UserError(f"{workdir} is not a workdir of a training run: it has neither config.json nor metrics.jsonl")
    config = config or {}
    body = tiles(_facts(records, config)) + _sections(workdir, records, config)
    body += section("Config", _config(config)) + section("Environment", _environment(workdir))
    return _write(workdir, page(title=_title(config), subtitle=_subtitle(records, config, workdir), body=body))


def write_pipeline_report(workdir: Path, *, sections: Sequence[Section] = ()) -> Path:
    """Writes the report of a pipeline: headline tables, its stages, and what each training stage did."""
    workdir = Path(workdir)
    stages = _json(workdir / "stages.json") or []
    config = _json(workdir / "config.json") or {}
    if not stages:
        raise UserError(f"{workdir} has no stages.json: run the pipeline first")
    body = "".join(
        _comparison(config.get("stages", {}).get(stage["name"], {}), stage["results"])
        for stage in stages
        if stage["kind"] == "Compare"
    )
    for part in sections:
        prose = f'<p class="sub">{escape(part.text)}</p>' if part.text else ""
        body += section(part.title, prose + table(part.head, part.rows))
    body += section("Stages", _stages(stages))
    for stage in stages:
        folder = workdir / stage["folder"]
        records = read_metrics(folder)
        if records:
            run = _json(folder / "config.json") or {}
            inside = tiles(_facts(records, run)) + _sections(folder, records, run, level=3)
            body += folded(f"{stage['name']}: {_title(run)}", inside)
    body += section("Config", _config(config))
    seconds = sum(stage["seconds"] for stage in stages)
    subtitle = f"{len(stages)} stages, {seconds:.0f} s, in {workdir.resolve().name}"
    return _write(workdir, page(title=workdir.resolve().name, subtitle=subtitle, body=body))


def _write(workdir: Path, text: str) -> Path:
    path, part = workdir / REPORT, workdir / f".{REPORT}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None


def _class(stored: Any) -> str:
    return stored.get(TYPE, "").split(":")[-1] if isinstance(stored, Mapping) else ""


def _title(config: Mapping) -> str:
    return " · ".join(n for n in (_class(config.get(k)) for k in ("model", "source")) if n) or "Training run"


def _subtitle(records: Sequence[Mapping], config: Mapping, workdir: Path) -> str:
    steps = max((r["step"] for r in records), default=0)
    task = _class(config.get("task"))
    planned = f" of {config['steps']:,}" if "steps" in config else ""
    return f"{task + ', ' if task else ''}{steps:,}{planned} steps, in {workdir.resolve().name}"


def _series(records: Iterable[Mapping]) -> dict[str, tuple[list[float], list[float | None]]]:
    """Steps and values of every name, in order."""
    out: dict[str, tuple[list[float], list[float | None]]] = {}
    for record in records:
        for name, value in record["values"].items():
            x, y = out.setdefault(name, ([], []))
            x.append(record["step"])
            y.append(value)
    return out


def _finite(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float]]:
    kept = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    return [a for a, _ in kept], [b for _, b in kept]


def _split(name: str, config: Mapping) -> tuple[str, str]:
    """Of "valid/cold/auc" -> ("valid · cold", "auc") where cold is a slice of evaluator valid."""
    evaluator, _, rest = name.partition("/")
    slices = (config.get("evals", {}).get(evaluator) or {}).get("slices", {})
    first, _, metric = rest.partition("/")
    return (f"{evaluator} · {first}", metric) if metric and first in slices else (evaluator, rest)


def _judge(metric: str):
    """How the best of a metric is chosen: min, max, or None where neither is better."""
    parts = metric.split("@")[0].split("/")
    if parts[-1] in UNJUDGED + ACCOUNTS or parts[0] in DIFFERENCES:
        return None
    return min if any(part in LOWER for part in parts) else max


def _facts(records: Sequence[Mapping], config: Mapping) -> list[tuple[str, str]]:
    series = _series(records)
    facts = []
    watched = [(config.get(part) or {}).get("metric") for part in ("early_stop", "plateau")]
    chosen = next((name for name in ((config.get("checkpoint") or {}).get("best"), *watched) if name), None)
    evaluated = [n for n in series if not n.startswith(NOT_EVALUATED)]
    main = [n for n in evaluated if n == chosen] or evaluated[:2]
    for name, label in ((f"best/{chosen}", f"{chosen}, best"), ("best/step", "step of the best")):
        if name in series:
            facts.append((label, number(series[name][1][-1])))
    for name in [*main, "train/loss"]:
        values = _finite(*series.get(name, ((), ())))[1]
        if values:
            facts.append((f"{name}, last", number(values[-1])))
    for name, label in (("train/rows_per_s", "rows/s, median"), ("train/data_wait", "of the time waiting for data")):
        values = sorted(_finite(*series.get(name, ((), ())))[1])
        if values:
            middle = values[len(values) // 2]
            facts.append((label, f"{middle:.1%}" if name.endswith("wait") else number(middle)))
    labels = ("rows/s, net", "s an epoch", "parameters")
    facts += [(label, number(series[name][1][-1])) for name, label in zip(WHOLE, labels, strict=True) if name in series]
    return facts


def _sections(workdir: Path, records: Sequence[Mapping], config: Mapping, *, level: int = 2) -> str:
    """Charts and tables of one run."""
    series = _series(records)
    train = {
        n.removeprefix("train/"): _finite(*s) for n, s in series.items() if n.startswith("train/") and n not in WHOLE
    }
    rates = ("steps_per_s", "rows_per_s", "data_wait")
    charts = [
        draw(
            Chart(title=name, series=[Series(name, *train[name])], y_range=(0.0, 1.0) if name == "data_wait" else None)
        )
        for name in ("loss", *(n for n in train if n not in (*rates, "loss")), "rows_per_s", "data_wait")
        if name in train and train[name][0]
    ]
    return (
        section("Evaluation", _table(records, config) + _charts(_over_steps(series, config)), level=level)
        + section("Curves", _charts(_curves(workdir, config)), level=level)
        + section("Nearest neighbours", _sheets(workdir, config), level=level)
        + section("Training", _charts(charts), level=level)
    )


def _charts(charts: Sequence[str]) -> str:
    shown = [chart for chart in charts if chart]
    return f'<div class="charts">{"".join(shown)}</div>' if shown else ""


def _over_steps(series: Mapping[str, tuple], config: Mapping) -> list[str]:
    """One chart per metric with a line per evaluator and slice, where it was measured more than once."""
    charts: dict[str, list[Series]] = {}
    for name, values in series.items():
        x, y = _finite(*values)
        where, metric = _split(name, config)
        if not name.startswith(NOT_EVALUATED) and len(x) > 1 and _judge(metric) is not None:
            charts.setdefault(metric, []).append(Series(where, x, y, dots=len(x) < 40))
    return [draw(Chart(title=metric, series=lines)) for metric, lines in charts.items()]


def _table(records: Sequence[Mapping], config: Mapping) -> str:
    """A row per figure, a column per evaluator and slice: the last value, and the best where that is another."""
    why = {name: reason for record in records for name, reason in record.get("reasons", {}).items()}
    cells: dict[str, dict[str, str]] = {}
    for name, (steps, values) in _series(records).items():
        if name.startswith(NOT_EVALUATED):
            continue
        where, metric = _split(name, config)
        judge, (x, y) = _judge(metric), _finite(steps, values)
        best = judge(range(len(y)), key=lambda i, y=y: y[i]) if judge and y else None
        cell = number(values[-1])
        if values[-1] is None:
            cell += f"\n{why.get(name, '')}"
        elif best is not None and y[best] != values[-1]:
            cell += f"\nbest {number(y[best])} at {number(x[best])}"
        cells.setdefault(metric, {})[where] = cell
    columns = list(dict.fromkeys(where for row in cells.values() for where in row))
    return table(("", *columns), [(metric, *(row.get(w, "") for w in columns)) for metric, row in cells.items()])


def _sheets(workdir: Path, config: Mapping) -> str:
    """The pictures that evaluators left: a folded sheet each."""
    found = [(name, curve) for name, curve in _stored(workdir) if curve["kind"] == SHEET]
    return "".join(folded(" · ".join(name.split("/")), sheet(curve["rows"])) for name, curve in found)


def _stored(workdir: Path) -> Iterable[tuple[str, Mapping]]:
    """What evaluators left, by its whole name."""
    for path in sorted((workdir / CURVES).glob("*.json")):
        stored = _json(path)
        for name, curve in stored["curves"].items():
            yield f"{stored['name']}/{name}", curve


def _curves(workdir: Path, config: Mapping) -> list[str]:
    """ROC, precision-recall, reliability and Lorenz curves that evaluators left, slices in one chart."""
    charts: dict[tuple[str, str, str], list[tuple[str, Mapping]]] = {}
    for name, curve in _stored(workdir):
        if curve["kind"] != SHEET:
            where, metric = _split(name, config)
            charts.setdefault((name.partition("/")[0], curve["kind"], metric), []).append((where, curve))
    return [_curve(f"{name}: {metric}", kind, lines) for (name, kind, metric), lines in charts.items()]


LABELS = {
    "roc": ("ROC, {}", "false positive rate", "true positive rate"),
    "pr": ("Precision and recall, {}", "recall", "precision"),
    "reliability": ("Reliability, {}", "mean prediction", "share of positives"),
    "lorenz": ("Concentration, {}", "share of items, least shown first", "share of recommendations"),
}
DIAGONALS = {"roc": "chance", "reliability": "calibrated", "lorenz": "even"}


def _curve(name: str, kind: str, lines: Sequence[tuple[str, Mapping]]) -> str:
    title, x_label, y_label = LABELS[kind]
    series = [Series(where, c["x"], c["y"], dots=kind == "reliability") for where, c in lines]
    unit, bars, note = (0.0, 1.0), [], ""
    x_range = y_range = unit
    if kind == "reliability":
        top = min(1.0, 1.08 * max([*lines[0][1]["x"], *lines[0][1]["y"], 1e-6]))
        x_range = y_range = (0.0, top)
        most = max(lines[0][1]["count"])
        bars = [(x, n / most) for x, n in zip(lines[0][1]["x"], lines[0][1]["count"], strict=True)]
        note = f"Bars: rows of {lines[0][0]} in each bin (bins of equal {lines[0][1]['bins']})."
    if kind == "pr":
        y_range = (0.0, min(1.0, 1.08 * max(max(c["y"]) for _, c in lines)))
        note = f"Share of positives: {number(lines[0][1]['base'])}."
    else:
        series.append(Series(DIAGONALS[kind], x_range, y_range, dashed=True))
    chart = Chart(title.format(name), series, x_label, y_label, x_range=x_range, y_range=y_range, bars=bars, note=note)
    return draw(chart)


def _config(config: Mapping) -> str:
    """The resolved config as the command line would take it, a field a line."""
    lines = list(_fields(config, ""))
    return folded(f"{len(lines)} fields", f'<pre class="card">{"".join(lines)}</pre>') if lines else ""


def _fields(value: Any, path: str) -> Iterable[str]:
    if isinstance(value, Mapping) and value:
        if TYPE in value and path:
            yield f"{escape(path)}=<b>{escape(_class(value))}</b>\n"
        for name, part in value.items():
            if name != TYPE:
                yield from _fields(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for i, part in enumerate(value):
            yield from _fields(part, f"{path}.{i}")
    else:
        shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"<i>{escape(path)}=</i>{escape(shown)}\n"


def _environment(workdir: Path) -> str:
    return table(("what", "version"), list((_json(workdir / ENVIRONMENT) or {}).items()))


def _stages(stages: Sequence[Mapping]) -> str:
    rows = []
    for stage in stages:
        figures = [f"{name} {_shown(value)}" for name, value in list(stage["results"].items())[:6]]
        more = len(stage["results"]) - len(figures)
        figures += [f"and {more} more"] if more else []
        rows.append((stage["name"], stage["kind"], stage["status"], f"{stage['seconds']:.1f}", ", ".join(figures)))
    return table(("stage", "kind", "status", "seconds", "figures"), rows, text=(1, 2, 4))


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _comparison(config: Mapping, results: Mapping[str, float]) -> str:
    """The table of a Compare stage: a row per label, with what it gained over the first."""
    labels, metrics = list(config.get("rows", {})), list(config.get("metrics", ()))
    rows, good = [], []
    for r, label in enumerate(labels):
        cells = [label]
        for metric in metrics:
            gain = results[f"{label}/{metric}"] - results[f"{labels[0]}/{metric}"]
            cells += [f"{results[f'{label}/{metric}']:.4f}", f"{gain:+.4f}" if r else ""]
            if (gain < 0 and _judge(metric) is min) or (gain > 0 and _judge(metric) is max):
                good.append((r, len(cells) - 1))
        rows.append(cells)
    head = ["", *(part for metric in metrics for part in (metric, "gain"))]
    return section(config.get("title", "Comparison"), table(head, rows, good=good))
