"""Checkpoints: state, data iterator, clock and config in one atomic write, checked before anything is read back."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import chz
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from data.errors import UserError
from train import checkpoint_files as files
from train import distributed, orbax_io

Report = Callable[[str], None]


class CheckpointWriteError(UserError):
    """A checkpoint could not be written: the disk is full, the quota spent, the folder gone."""

    exit_code = 5


@chz.chz
class Checkpointing:
    every: int | None = chz.field(default=1000, doc="steps between checkpoints; None saves at the end alone")
    keep_last: int = chz.field(default=3, doc="how many of the latest are kept")
    keep_best: int = chz.field(default=1, doc="how many of the best by `best` are kept beside them")
    best: str | None = chz.field(default=None, doc="the metric that ranks checkpoints, such as valid/auc")
    mode: Literal["max", "min"] = chz.field(default="max", doc="whether more of `best` is better, or less")

    @chz.validate
    def _check(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"checkpoint.every is {self.every}; give a positive number of steps, or None")
        if self.keep_last < 1 or self.keep_best < 0:
            raise ValueError("checkpoint.keep_last must be at least 1 and keep_best at least 0")

    def due(self, step: int) -> bool:
        return self.every is not None and step > 0 and step % self.every == 0


@dataclass(frozen=True)
class Restored:
    step: int
    state: Any
    iterator: dict
    clock: dict
    config: dict
    metrics: dict[str, float] | None


class Checkpointer:
    """Saves and restores below `directory`, one folder a step, named by its number.

    Every process of a run makes one and calls the same methods in the same order.
    """

    def __init__(self, directory: str | Path, *, config: Checkpointing | None = None, report: Report | None = None):
        orbax_io.quiet()
        self.directory = Path(directory).expanduser().absolute()
        self.config = config or Checkpointing()
        self._report = report or _to_stderr
        self._primary = jax.process_index() == 0
        self._in_flight: int | None = None
        self._metric_missed = False
        if self._primary:
            self.directory.mkdir(parents=True, exist_ok=True)
            files.clean(self.directory)
        self._late_writes = orbax_io.LateWrites()
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(state=orbax_io.writer(), meta=ocp.JsonCheckpointHandler()),
            # Runs in the background once all is written and before the folder gets its name, so that a
            # checkpoint without a manifest is never left by a kill.
            async_options=ocp.options.AsyncOptions(timeout_secs=3600, post_finalization_callback=self._seal),
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Finished checkpoints, oldest first."""
        return files.steps(self.directory)

    def latest(self) -> int | None:
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The best by `config.best`, the later of equals; None when none has that metric."""
        ranked = files.ranked(self.directory, metric=self.config.best, mode=self.config.mode)
        return ranked[0] if ranked else None

    def save(
        self,
        step: int,
        *,
        state: Any,
        iterator: Mapping,
        clock: Mapping,
        config: Mapping,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> bool:
        """Copies the state off the devices and writes it in the background; waits for the save before it, if any.

        False only if this step is there already: then nothing is written, unless it was saved on a request to stop,
        before it was measured, and now is. Raises what the save before it raised.
        """
        self.wait()
        if step in self.steps():
            if not metrics or files.read_meta(self.directory / str(step))["metrics"]:
                return False
            distributed.barrier("all have read what is replaced")
            if self._primary:
                files.hold(self.directory, step=step)
            distributed.barrier("replaced")
        meta = {
            "step": step,
            "iterator": dict(iterator),
            "clock": dict(clock),
            "config": dict(config),
            "metrics": None if metrics is None else {name: float(value) for name, value in metrics.items()},
            "best": {"metric": self.config.best, "mode": self.config.mode},
        }
        self._note_metric(metrics)
        # Written later by another thread: a copy, since the caller goes on counting in these dicts.
        meta = json.loads(json.dumps(meta))
        self._in_flight = step
        try:
            self._orbax.save(
                self.directory / str(step),
                args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta)),
            )
        except Exception as error:
            self._failed(error)
        if wait:
            self.wait()
        return True

    def check(self) -> None:
        """Raises what the save in the background met, without waiting for it."""
        try:
            self._orbax.check_for_errors()
        except Exception as error:
            self._failed(error)

    def wait(self) -> None:
        """Until the save in the background is finished and the checkpoints beyond the limits are gone."""
        if self._in_flight is None:
            return
        try:
            self._orbax.wait_until_finished()
        except Exception as error:
            self._failed(error)
        self._in_flight = None
        self._prune()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._orbax.close()
            self._late_writes.close()

    def restore(self, abstract_state: Any, *, step: int | None = None) -> Restored | None:
        """The latest sound checkpoint, put where `abstract_state` (ShapeDtypeStructs with shardings) says.

        A damaged one is reported, moved aside as corrupt-<step>, and the one before it is taken; None if there has
        never been one. A `step` that was asked for is taken or refused.
        """
        self.wait()
        if step is not None and step not in self.steps():
            raise UserError(f"{self.directory} has no checkpoint {step}; there are {self.steps() or 'none'}")
        while True:
            chosen = self._agree(step)
            if chosen is None:
                return None
            sealed = files.is_sealed(self.directory / str(chosen))
            try:
                return self._read(chosen, abstract_state=abstract_state)
            except UserError:
                raise
            except Exception as error:
                # Its bytes are as written, so this is no damage and the checkpoint before would fare no better.
                if sealed or step is not None:
                    raise
                if self._primary:
                    self._set_aside(chosen, f"{type(error).__name__}: {_first_line(error)}")

    def part(self, abstract: Any, *, step: int) -> Any:
        """Of one checkpoint's state what `abstract` names, put where it says."""
        self.wait()
        self._agree(step)
        return orbax_io.read_part(self.directory / str(step), abstract=abstract)

    def _read(self, step: int, *, abstract_state: Any) -> Restored:
        folder = self.directory / str(step)
        meta = files.read_meta(folder)
        state = orbax_io.read_state(folder, abstract_state=abstract_state)
        return Restored(
            state=state, **{name: meta[name] for name in ("step", "iterator", "clock", "config", "metrics")}
        )

    def _agree(self, step: int | None) -> int | None:
        """The first process looks at the files; the others take its word."""
        if jax.process_count() == 1:
            return self._next_sound(step)
        chosen, failure = None, None
        if self._primary:
            try:
                chosen = self._next_sound(step)
            except UserError as error:
                failure = error
        word = np.array([failure is not None, -1 if chosen is None else chosen], np.int32)
        failed, said = multihost_utils.broadcast_one_to_all(word).tolist()
        if failed:
            raise failure or UserError(
                f"process 0 found no sound checkpoint in {self.directory}; its message says more"
            )
        return None if said < 0 else said

    def _next_sound(self, step: int | None) -> int | None:
        for candidate in [step] if step is not None else reversed(self.steps()):
            damage = files.damage(self.directory / str(candidate))
            if damage is None:
                return candidate
            if step is not None:
                raise UserError(f"checkpoint {step} in {self.directory} is damaged: {damage}; choose another step")
            self._set_aside(candidate, damage)
        if bad := files.set_aside(self.directory):
            raise UserError(
                f"no sound checkpoint is left in {self.directory}: {', '.join(bad)} are damaged; delete them to start "
                f"from the beginning, or name another --workdir"
            )
        return None

    def _set_aside(self, step: int, damage: str) -> None:
        moved = files.move_aside(self.directory, step=step)
        before = self.latest()
        then = f"going back to checkpoint {before}" if before is not None else "there is none before it"
        self._report(f"warning: checkpoint {step} is damaged ({damage}); kept as {moved}, {then}")

    def _seal(self) -> None:
        files.seal(files.unfinished(self.directory, step=self._in_flight))

    def _prune(self) -> None:
        if not self._primary:
            return
        files.release(self.directory)
        best = files.ranked(self.directory, metric=self.config.best, mode=self.config.mode)[: self.config.keep_best]
        keep = {*self.steps()[-self.config.keep_last :], *best}
        for step in self.steps():
            if step not in keep:
                files.remove(self.directory, step=step)

    def _note_metric(self, metrics: Mapping[str, float] | None) -> None:
        if metrics and self.config.best is not None and self.config.best not in metrics and not self._metric_missed:
            self._metric_missed = True
            self._report(
                f"warning: checkpoint.best is {self.config.best!r}, which is not among {', '.join(sorted(metrics))}; "
                f"such checkpoints cannot be the best"
            )

    def _failed(self, error: Exception) -> None:
        step, self._in_flight = self._in_flight, None
        if self._primary:
            # To make room at once. Other writes of this save may still be ending: the next start removes their rest.
            shutil.rmtree(files.unfinished(self.directory, step=step), ignore_errors=True)
        if not files.is_write_error(error):
            raise error
        latest = self.latest()
        safe = f"checkpoint {latest} is untouched" if latest is not None else "there is no earlier one"
        raise CheckpointWriteError(
            f"cannot write checkpoint {step} to {self.directory}: {files.reason(error)}; {safe}; "
            f"make room and run the same command again"
        ) from error


def load_weights(
    directory: str | Path, *, step: int | Literal["best", "latest"] = "best", report: Report | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """{"params", "stats", "ema"} of `sound_step` as numpy arrays, without knowing the optimizer; writes nothing.

    Rows that have yet to decay are settled, as evaluation saw them.
    """
    chosen = sound_step(directory, step=step, report=report)
    return orbax_io.read_weights(Path(directory).expanduser().absolute() / str(chosen))


def sound_step(
    directory: str | Path, *, step: int | Literal["best", "latest"] = "best", report: Report | None = None
) -> int:
    """The checkpoint that serving reads; moves and writes nothing.

    "best" goes by the metric that the run was told to rank by, and is "latest" where there is none. Damaged
    checkpoints are reported and passed over, but not when a number was asked for.
    """
    orbax_io.quiet()
    directory = Path(directory).expanduser().absolute()
    steps = files.steps(directory)
    if not steps:
        raise UserError(f"{directory} has no checkpoint; train first, or name another workdir")
    if isinstance(step, int):
        order = [step]
        if step not in steps:
            raise UserError(f"{directory} has no checkpoint {step}; there are {steps}")
    else:
        order = list(reversed(steps))
        if step == "best":
            ranked = files.ranked(directory, **files.ranking(directory))
            order = ranked + [s for s in order if s not in ranked]
    for candidate in order:
        damage = files.damage(directory / str(candidate))
        if damage is None:
            return candidate
        (report or _to_stderr)(f"warning: checkpoint {candidate} is damaged ({damage}); passed over")
    raise UserError(f"no sound checkpoint among {order} in {directory}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
