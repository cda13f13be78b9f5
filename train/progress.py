"""What a run shows of itself: a bar in a terminal, plain lines elsewhere. Both on standard error."""

import sys
import time
from collections.abc import Mapping
from typing import Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Style = Literal["auto", "bar", "lines", "none"]
ACCOUNTS = ("/unweighted", "/groups", "/excluded_groups", "/excluded_rows", "/ratio", "/expected", "/ties")


class RowsDone(Protocol):
    """What an evaluator calls as it goes through its rows."""

    def __call__(self, done: int, total: int) -> None: ...


class Show:
    """Shows nothing."""

    def step(self, step: int) -> None: ...

    def train(self, step: int, values: Mapping[str, float]) -> None: ...

    def evaluation(self, step: int, values: Mapping[str, float]) -> None: ...

    def evaluating(self, name: str) -> RowsDone:
        return lambda done, total: None

    def close(self) -> None: ...


def show(style: Style, *, steps: int, start: int) -> Show:
    if style == "auto":
        style = "bar" if sys.stderr.isatty() else "lines"
    if style == "bar":
        return Bar(steps=steps, start=start)
    return Lines(steps=steps) if style == "lines" else Show()


class Lines(Show):
    def __init__(self, *, steps: int):
        self.steps = steps

    def train(self, step: int, values: Mapping[str, float]) -> None:
        print(f"step {step}/{self.steps}  {summary(values, left=self.steps - step)}", file=sys.stderr, flush=True)

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        print(f"step {step}/{self.steps}  {figures(values)}", file=sys.stderr, flush=True)


class Bar(Show):
    def __init__(self, *, steps: int, start: int, console: Console | None = None):
        self.steps = steps
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
        )
        self.task = self.progress.add_task("train", total=steps, completed=start, figures="")
        self.seen = 0.0
        self.progress.start()

    def step(self, step: int) -> None:
        now = time.perf_counter()
        if now - self.seen > 0.1 or step == self.steps:  # steps may come far faster than eyes
            self.seen = now
            self.progress.update(self.task, completed=step)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        self.progress.update(self.task, figures=summary(values, left=self.steps - step))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        self.progress.console.print(f"step {step}  {figures(values)}", highlight=False, markup=False)

    def evaluating(self, name: str) -> RowsDone:
        task: TaskID = self.progress.add_task(name, total=1, figures="rows")

        def report(done: int, total: int) -> None:
            self.progress.update(task, completed=done, total=total)
            if done >= total:
                self.progress.remove_task(task)

        return report

    def close(self) -> None:
        self.progress.stop()


def summary(values: Mapping[str, float], *, left: int) -> str:
    """loss 0.4213  812 steps/s  416k rows/s  data wait 2%  left 0:12"""
    parts = [f"loss {values['train/loss']:.4f}"]
    if "train/steps_per_s" in values:
        rate = values["train/steps_per_s"]
        parts += [
            f"{short(rate)} steps/s",
            f"{short(values['train/rows_per_s'])} rows/s",
            f"data wait {values['train/data_wait']:.0%}",
            f"left {clock(left / rate)}",
        ]
    return "  ".join(parts)


def figures(values: Mapping[str, float], *, most: int = 8) -> str:
    """The first figures by name, those that only account for others last."""
    order = sorted(values, key=lambda name: name.endswith(ACCOUNTS))
    shown = [f"{name} {values[name]:.4g}" for name in order[:most]]
    return "  ".join(shown) + (f"  and {len(values) - most} more" if len(values) > most else "")


def short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
