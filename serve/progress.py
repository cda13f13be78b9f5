"""How far a long command is: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Say = Callable[[str], None]

EVERY_SECONDS = 10.0


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Rows:
    """Counts rows towards `total`; those `done` before this run are not part of its rate."""

    def __init__(self, what: str, *, total: int, done: int = 0, say: Say | None = None):
        self.what, self.total, self.done, self._before = what, total, done, done
        self._say = say or to_stderr
        self._begun = self._said = time.perf_counter()
        self._bar: Progress | None = None
        if say is None and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def __enter__(self) -> "Rows":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return (self.done - self._before) / max(time.perf_counter() - self._begun, 1e-9)

    def advance(self, rows: int) -> None:
        self.done += rows
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate:,.0f} rows/s")
        elif (now := time.perf_counter()) - self._said >= EVERY_SECONDS:
            self._said = now
            left = (self.total - self.done) / max(self.rate, 1e-9)
            share = 100 * self.done / max(self.total, 1)
            count = f"{self.done:,} of {self.total:,} rows ({share:.0f} %)"
            self._say(f"{self.what}: {count}, {self.rate:,.0f} rows/s, {left:.0f} s left")
