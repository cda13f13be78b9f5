"""The log of a run: metrics as JSONL always, TensorBoard by option, progress for who watches.

`metrics.jsonl` holds one object a line, in the order of events:
  {"step": 100, "time": 1.7e9, "values": {"train/loss": 0.43, ...}}   a value that is not finite is null ...
  {..., "values": {"valid/auc": null}, "reasons": {"valid/auc": "only one class ..."}}   ... and has a reason
  {"step": 60, "time": 1.7e9, "resumed": true}   from here on, lines above with step > 60 no longer hold
The file is only appended to; `read_metrics` drops what a resumption superseded (one at step 0 supersedes all).

Train metrics arrive as device arrays and are fetched one interval late, so that the loop never waits for the step
it has just queued. `flush` fetches all there is: the loop calls it before it saves or evaluates.
"""

import json
import math
import os
import platform
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import chz
import jax
import numpy as np

from data.errors import UserError
from train.progress import RowsDone, Show, Style, show

METRICS, ENVIRONMENT = "metrics.jsonl", "environment.json"
AHEAD = 8  # steps that may be queued beside the one that runs


class NotFinite(UserError):
    """The loss became NaN or infinite."""

    exit_code = 4

    def __init__(self, *, name: str, value: float, step: int):
        self.step = step
        super().__init__(
            f"{name} is {value} at step {step}: lower the learning rate, clip gradients (optimizer.clip_norm), "
            f"or look at the batch of that step"
        )


@chz.chz
class Logging:
    every: int = chz.field(default=100, doc="steps between lines of train metrics")
    tensorboard: bool = chz.field(default=False, doc="also write <workdir>/tensorboard")
    profile: tuple[int, int] | None = chz.field(default=None, doc="first and last step traced to <workdir>/profile")
    progress: Style = chz.field(default="auto", doc="auto: bar in a terminal")

    @chz.validate
    def _positive(self):
        if self.every < 1:
            raise ValueError(f"log.every must be at least 1, got {self.every}")
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(f"log.profile needs 1 <= first <= last, got {self.profile}")


def read_metrics(workdir: Path) -> list[dict]:
    """The lines that hold, in order, resumption marks left out. A torn last line is not one."""
    records: list[dict] = []
    path = Path(workdir) / METRICS
    text = path.read_text() if path.exists() else ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON ({error.msg}); delete that line to go on") from error
        if record.get("resumed"):
            records = [r for r in records if record["step"] > 0 and r["step"] <= record["step"]]
        else:
            records.append(record)
    return records


class JSONLines:
    """Appends records, after cutting off a last line that a killed process left torn."""

    def __init__(self, path: Path):
        if path.exists():
            with path.open("rb+") as file:
                content = file.read()
                file.truncate(content.rfind(b"\n") + 1)
        self._file = path.open("a", buffering=1)

    def write(self, record: Mapping) -> None:
        self._file.write(json.dumps(record, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()


def record_of(*, step: int, values: Mapping[str, float], reasons: Mapping[str, str]) -> dict:
    """A line of the log; what is not finite becomes null with a reason."""
    odd = {n: reasons.get(n, repr(float(v))) for n, v in values.items() if not math.isfinite(v)}
    shown = {n: None if n in odd else float(v) for n, v in values.items()}
    return {"step": step, "time": round(time.time(), 3), "values": shown, **({"reasons": odd} if odd else {})}


@dataclass
class _Interval:
    """Steps whose metrics are still on the device."""

    losses: list = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    logs: Mapping[str, jax.Array] = field(default_factory=dict)
    checked: list[float] = field(default_factory=list)
    timed: int = 0  # steps that `seconds` spans
    seconds: float = 0.0
    waited: float = 0.0

    def check(self) -> None:
        """Fetches the losses; raises at the first that is not finite."""
        for step, value in zip(self.steps[len(self.checked) :], jax.device_get(self.losses), strict=True):
            if not np.isfinite(value):
                raise NotFinite(name="loss", value=float(value), step=step)
            self.checked.append(float(value))
        self.losses = []


class Logger:
    """Takes the metrics of every step, writes those of every `config.every`-th. Only process 0 writes."""

    def __init__(
        self,
        workdir: Path,
        *,
        config: Logging,
        steps: int,
        batch_size: int,
        start: int = 0,
        timed: tuple[int, float] = (0, 0.0),
    ):
        self.workdir, self.config, self.steps, self.batch_size = Path(workdir), config, steps, batch_size
        self._open: _Interval = _Interval()
        self._closed: _Interval | None = None
        self._last: float | None = None  # when the previous step was queued; None after a pause
        self._ahead: deque[jax.Array] = deque(maxlen=AHEAD)
        self._timed_steps, self._timed_seconds = timed
        self._profiling = False
        self._lines = self._board = None
        writes = jax.process_index() == 0
        self._show: Show = show(config.progress if writes else "none", steps=steps, start=start)
        if writes:
            (self.workdir / ENVIRONMENT).write_text(json.dumps(environment(), indent=1) + "\n")
            path = self.workdir / METRICS
            self._lines = JSONLines(path)
            if path.stat().st_size:
                self._lines.write({"step": start, "time": round(time.time(), 3), "resumed": True})
            if config.tensorboard:
                self._board = _board(self.workdir / "tensorboard", start=start)
        self._profile(start)

    @property
    def timed(self) -> tuple[int, float]:
        """Steps of the whole run that were timed, and their seconds: no compilation, evaluation or saving."""
        return self._timed_steps, self._timed_seconds

    def go_on(self) -> None:
        """The next step begins now, with the wait for its batch."""
        if self._last is None:
            self._last = time.perf_counter()

    def train(self, step: int, logs: Mapping[str, jax.Array], *, waited: float = 0.0, compiled: bool = False) -> None:
        """Metrics of `step`, just queued; `waited` are the seconds the loop spent on getting its batch.

        A step that was compiled first is waited for and counts in no rate. Of the others no more than AHEAD stay
        queued: enough to keep the device busy, so few that rates are of steps done and batches do not pile up on it.
        """
        if compiled:
            jax.block_until_ready(logs["loss"])
            self._last = None
        if len(self._ahead) == AHEAD:
            jax.block_until_ready(self._ahead[0])
        self._ahead.append(logs["loss"])
        now, part = time.perf_counter(), self._open
        if self._last is not None:
            part.timed += 1
            part.waited += waited
            self._timed_steps += 1
            self._spend(now - self._last, part)
        self._last = now
        part.losses.append(logs["loss"])
        part.steps.append(step)
        part.logs = logs
        self._show.step(step)
        if step % self.config.every == 0 or step == self.steps:
            self._settle()
            self._open, self._closed = _Interval(), part
        self._profile(step)

    def pause(self) -> None:
        """Waits for all queued steps; what follows until `go_on` counts in no rate."""
        part = self._open if self._open.losses else self._closed
        if part is not None and self._last is not None:
            jax.block_until_ready(part.losses)
            self._spend(time.perf_counter() - self._last, part)
        self._last = None

    def _spend(self, seconds: float, part: _Interval) -> None:
        part.seconds += seconds
        self._timed_seconds += seconds

    def flush(self) -> None:
        """Waits for all queued steps and checks them; the pause that follows counts in no rate."""
        self.pause()
        self._settle()
        self._open.check()

    def evaluation(self, step: int, values: Mapping[str, float], *, reasons: Mapping[str, str] | None = None) -> None:
        """Figures of an evaluator, with their full names."""
        self._write(step, values, reasons=reasons or {})
        self._show.evaluation(step, values)
        self._last = None

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of the run as a whole."""
        self._write(step, values, reasons={})

    def evaluating(self, name: str) -> RowsDone:
        """A progress callback for `Evaluator.run`."""
        return self._show.evaluating(name)

    def close(self) -> None:
        """Ends the display and the files; what was not flushed is written if it can be."""
        if self._profiling:
            jax.profiler.stop_trace()
            self._profiling = False
        self._show.close()
        for sink in (self._lines, self._board):
            if sink is not None:
                sink.close()
        self._lines = self._board = None

    def _settle(self) -> None:
        """Writes the interval that is one late."""
        part, self._closed = self._closed, None
        if part is None:
            return
        part.check()
        step = part.steps[-1]
        values = {f"train/{n}": float(v) for n, v in jax.device_get(dict(part.logs)).items() if np.ndim(v) == 0}
        values["train/loss"] = float(np.mean(part.checked))
        if part.timed and part.seconds > 0:
            rate = part.timed / part.seconds
            values |= {"train/steps_per_s": rate, "train/rows_per_s": rate * self.batch_size}
            values["train/data_wait"] = min(1.0, part.waited / part.seconds)
        self._write(step, values, reasons={})
        self._show.train(step, values)

    def _write(self, step: int, values: Mapping[str, float], *, reasons: Mapping[str, str]) -> None:
        if self._lines is not None:
            self._lines.write(record_of(step=step, values=values, reasons=reasons))
        if self._board is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._board.add_scalar(name, value, step)

    def _profile(self, step: int) -> None:
        """Traces the steps from profile[0] to profile[1]."""
        if self.config.profile is None:
            return
        first, last = self.config.profile
        if step == first - 1 and not self._profiling:
            jax.profiler.start_trace(self.workdir / "profile")
            self._profiling = True
        elif self._profiling and step >= last:
            jax.block_until_ready(self._closed.losses if self._closed else self._open.losses)
            jax.profiler.stop_trace()
            self._profiling = False


def _board(folder: Path, *, start: int):
    """A TensorBoard writer; events after `start` of an earlier attempt are purged."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("log.tensorboard needs tensorboardX: pip install 'adloom[track]'") from error
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)


def environment() -> dict[str, str]:
    """What the run runs on, for whoever wants the same figures again."""
    devices = jax.devices()
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": str(jax.process_count()),
    }
    for package in ("adloom", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "run from its source"
    return found
