"""The table: every model's figures beside those of the literature, as JSON, as Markdown and as a plot."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import chz

from data.errors import UserError
from train.pipeline import Results, Say, Stage
from train.protocol.chart import Line, Panel, Point, draw
from train.protocol.repeat import RESULTS
from train.protocol.space import words
from train.report_charts import number
from train.report_page import page, section, table
from train.workdir import write_json

MARKDOWN, SVG, HTML = "table.md", "chart.svg", "leaderboard.html"


@chz.chz
class Row:
    of: str = chz.field(doc="stage that repeated a model over seeds, such as @dnn")
    speed: str | None = chz.field(
        default=None, doc="file of a Speed stage, such as @speed/dnn.json; None: rates of the runs themselves"
    )
    anchor: float | None = chz.field(default=None, doc="figure to reach, on the same files")
    paper: str = chz.field(default="", doc="figure of the literature, on its own files")

    @property
    def stage(self) -> str:
        return self.of[1:].split("/")[0]


@chz.chz
class Leaderboard(Stage):
    """Reads what Repeat stages wrote; `results.json`, `table.md`, `chart.svg` and `leaderboard.html` are its own."""

    title: str
    rows: Mapping[str, Row] = chz.field(doc="by the model's name in the table")
    metric: str = chz.field(default="valid/auc", doc="figure of the plot and of the anchors; higher is better")
    also: tuple[str, ...] = chz.field(default=("valid/logloss",), doc="further figures of the table")
    anchor: str = chz.field(default="", doc="whose figures the anchors are")
    line: str | None = chz.field(default=None, doc="figure of a run drawn across the plot, such as valid/auc/possible")
    line_label: str = "Bayes-optimal"
    base: str | None = chz.field(default=None, doc="row from which each one's share of the way to the line is counted")

    @chz.validate
    def _base_is_a_row(self):
        if self.base is not None and self.line is None:
            raise ValueError("base counts the way to a line: name the figure of the line too")

    def among(self, stages: Collection[str]) -> "Leaderboard | None":
        kept = {name: row for name, row in self.rows.items() if row.stage in stages}
        return chz.replace(self, rows=kept, base=self.base if self.base in kept else None) if kept else None

    def run(self, *, out: Path, say: Say) -> Results:
        found = {name: _read(row) for name, row in self.rows.items()}
        for name, result in found.items():
            for metric in (self.metric, *self.also, "train/rows_per_second", "score/rows_per_second"):
                if metric not in result["mean"]:
                    raise UserError(
                        f"row {name!r} has no figure {metric!r}; it has {', '.join(sorted(result['mean']))}"
                    )
        head, rows = self._table(found)
        text = _markdown(head, rows)
        (out / MARKDOWN).write_text(f"{self.title}\n\n{text}\n", encoding="utf-8")
        figure = draw(self._panels(found))
        (out / SVG).write_text(figure, encoding="utf-8")
        body = section("Table", table(head, rows)) + section("Figures by speed", f'<div class="card">{figure}</div>')
        subtitle = f"{len(rows)} models, mean ± standard deviation over seeds"
        (out / HTML).write_text(page(title=self.title, subtitle=subtitle, body=body), encoding="utf-8")
        write_json(out / RESULTS, value={"title": self.title, "metric": self.metric, "rows": self._records(found)})
        say(self.title)
        for line in text.splitlines():
            say(line)
        return {
            f"{name}/{figure}": result["mean"][figure]
            for name, result in found.items()
            for figure in (self.metric, "train/rows_per_second", "score/rows_per_second")
        }

    def _records(self, found: Mapping[str, dict]) -> dict[str, dict]:
        return {
            name: {**result, "anchor": self.rows[name].anchor, "paper": self.rows[name].paper}
            for name, result in found.items()
        }

    def _table(self, found: Mapping[str, dict]) -> tuple[list[str], list[list[str]]]:
        way = self._way(found)
        anchored = any(row.anchor is not None for row in self.rows.values())
        quoted = any(row.paper for row in self.rows.values())
        head = ["model", self.metric, *([self.anchor or "anchor"] if anchored else []), *(["paper"] if quoted else [])]
        head += [f"of the way to {self.line_label}"] if way else []
        head += [
            *self.also,
            "setting",
            "trials",
            "seeds",
            "epochs",
            "parameters",
            "s/epoch",
            "train rows/s",
            "score rows/s",
        ]
        rows = []
        for name, result in found.items():
            row, mean = self.rows[name], result["mean"]
            cells = [name, _spread(result, self.metric)]
            cells += [_beside(row.anchor, mean[self.metric])] if anchored else []
            cells += [row.paper] if quoted else []
            cells += [f"{way[name]:.1%}"] if way else []
            cells += [_spread(result, metric) for metric in self.also]
            cells += [words(result["overrides"]), str(result["trials"]), str(len(result["runs"]))]
            cells += [
                f"{mean['train/epochs']:.1f}",
                f"{mean['model/parameters']:,.0f}",
                f"{mean['train/seconds_per_epoch']:.1f}",
            ]
            cells += [number(mean["train/rows_per_second"]), number(mean["score/rows_per_second"])]
            rows.append(cells)
        return head, rows

    def _height(self, found: Mapping[str, dict]) -> float:
        """Of the line, which is a figure of the rows of data rather than of a model."""
        heights = [result["mean"][self.line] for result in found.values() if self.line in result["mean"]]
        if not heights:
            raise UserError(f"no row has the figure {self.line!r} of the line")
        return max(heights)

    def _way(self, found: Mapping[str, dict]) -> dict[str, float]:
        """Each row's share of the difference between the base and the line."""
        if self.base is None:
            return {}
        figures = {name: result["mean"][self.metric] for name, result in found.items()}
        if self.base not in figures:
            raise UserError(f"base is {self.base!r}, but the rows are {', '.join(figures)}")
        low, high = figures[self.base], self._height(found)
        return {name: (figure - low) / (high - low) for name, figure in figures.items()}

    def _panels(self, found: Mapping[str, dict]) -> list[Panel]:
        line = None if self.line is None else Line(self.line_label, self._height(found))
        return [
            Panel(
                title,
                [
                    Point(name, r["mean"][speed], r["mean"][self.metric], spread=r["sd"][self.metric])
                    for name, r in found.items()
                ],
                x_label="rows/s",
                y_label=self.metric,
                line=line,
            )
            for title, speed in (("Training", "train/rows_per_second"), ("Scoring", "score/rows_per_second"))
        ]


def _read(row: Row) -> dict[str, Any]:
    """What the runs found, with the rates of the Speed stage in place of their own."""
    result = json.loads((Path(row.of) / RESULTS).read_text())
    if row.speed is not None:
        result["mean"] |= json.loads(Path(row.speed).read_text())
    return result


def _spread(result: Mapping[str, Any], metric: str) -> str:
    return f"{result['mean'][metric]:.5f} ± {result['sd'][metric]:.5f}"


def _beside(anchor: float | None, figure: float) -> str:
    return "" if anchor is None else f"{anchor:.5f} ({figure - anchor:+.5f})"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
