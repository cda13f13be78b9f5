"""The folder of one run: its config, its features, its checkpoints, and a lock that keeps a second process out."""

import fcntl
import json
import os
import shutil
import socket
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from data.errors import UserError

CONFIG, FEATURES, LOCK, CHECKPOINTS = "config.json", "features.json", "lock", "checkpoints"

# What may differ between the stored config and the one that resumes: it changes what is written, or for how long,
# but not what a step computes.
ALLOWED = ("log", "checkpoint")
ALLOWED_TO_GROW = ("steps",)

Access = Literal["own", "share", "read"]


def write_json(path: Path, *, value: Any) -> None:
    """A reader, or a start after a crash, sees the old file or the new one, never half of one."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; it is written by `python -m train`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it from a copy") from None


def config_diff(old: Any, new: Any) -> list[str]:
    """Lines such as `model.dim: 16 -> 32`, one for each leaf that differs."""
    return [f"{path}: {_show(a)} -> {_show(b)}" for path, a, b in _changes(_plain(old), _plain(new), path="")]


class _Absent:
    """A key that one side does not have: unlike None, no config can hold it."""


def _plain(value: Any) -> Any:
    """As a file gives it back, so that a tuple in memory equals the list that was stored."""
    return json.loads(json.dumps(value))


def _show(value: Any) -> str:
    return "(absent)" if value is _Absent else json.dumps(value, ensure_ascii=False)


def _changes(old: Any, new: Any, *, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        parts = [(key, old.get(key, _Absent), new.get(key, _Absent)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(index, a, b) for index, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        # A bool equals an int in Python, and 1 equals 1.0: in a config they are different values.
        return [] if type(old) is type(new) and old == new else [(path, old, new)]
    return [change for key, a, b in parts for change in _changes(a, b, path=f"{path}.{key}" if path else str(key))]


def _may_change(path: str, old: Any, new: Any) -> bool:
    if path.split(".")[0] in ALLOWED:
        return True
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (old, new))
    return path in ALLOWED_TO_GROW and numbers and new > old


class Workdir:
    """Creates or opens `path`.

    access "own": takes the lock until `close` or the end of the process, however it ends;
    "share": one of the other processes of the same run, which leaves lock and files to the owner;
    "read": for serving; needs neither the lock nor the right to write.
    """

    def __init__(self, path: str | os.PathLike, *, access: Access = "own"):
        self.path = Path(path).expanduser()
        self.access = access
        self._lock: int | None = None
        if access == "share":
            return
        self._recognise()
        if access == "own":
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Workdir({str(self.path)!r}, access={self.access!r})"

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _recognise(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a workdir; name another folder with --workdir")
        if (self.path / CONFIG).is_file():
            return
        if self.access == "read":
            raise UserError(f"{self.path} is not a workdir (no {CONFIG}); name the --workdir of a training run")
        # A run that was killed before it wrote its config leaves these two.
        made_by_us = {LOCK, CHECKPOINTS}
        others = sorted(p.name for p in self.path.iterdir() if p.name not in made_by_us) if self.path.exists() else []
        if others:
            raise UserError(
                f"{self.path} is not a workdir (no {CONFIG}) and holds {others[0]}"
                f"{f' and {len(others) - 1} more' if others[1:] else ''}; name an empty or new folder with --workdir"
            )

    def _take_lock(self) -> None:
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        if not _locked(descriptor):
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise UserError(f"{self.path} is in use by {holder}; wait for it, stop it, or name another --workdir")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        self._lock = descriptor
        # A forked data worker that outlives us must not go on holding the lock.
        owner = weakref.ref(self)

        def let_go() -> None:
            if (workdir := owner()) is not None:
                workdir.close()

        os.register_at_fork(after_in_child=let_go)

    def _writes(self) -> bool:
        if self.access == "read":
            raise ValueError(f"{self!r} was opened for reading")
        return self.access == "own"

    def read_config(self) -> dict | None:
        """None in a new workdir."""
        return read_json(self.path / CONFIG) if (self.path / CONFIG).exists() else None

    def write_config(self, config: dict) -> None:
        if self._writes():
            write_json(self.path / CONFIG, value=config)

    def read_features(self) -> Any:
        return read_json(self.path / FEATURES)

    def write_features(self, features: Any) -> None:
        if self._writes():
            write_json(self.path / FEATURES, value=features)

    def check_config(self, new: dict, *, report: Callable[[str], None] | None = None) -> list[str]:
        """Stores the config of a new workdir; refuses one that differs from the stored one, but for ALLOWED."""
        old = self.read_config()
        if old is None:
            self.write_config(new)
            return []
        changes = _changes(_plain(old), _plain(new), path="")
        lines = [f"{path}: {_show(a)} -> {_show(b)}" for path, a, b in changes]
        refused = [line for line, change in zip(lines, changes, strict=True) if not _may_change(*change)]
        if refused:
            raise UserError(
                f"{self.path} was made with another config:\n"
                + "".join(f"  {line}\n" for line in refused)
                + "undo these changes, or copy the run with `--fork NEW` and go on there"
            )
        if lines:
            self.write_config(new)
            for line in lines:
                (report or _to_stderr)(f"config changed: {line}")
        return lines

    def fork(self, new_path: str | os.PathLike) -> "Workdir":
        """A new workdir, locked by us, with this one's config, features and checkpoints; logs stay behind."""
        target = Path(new_path).expanduser()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"cannot fork to {target}: it exists and is not empty; name a new folder")
        # Put in place by one rename, so that half a copy is never taken for a workdir.
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for name in (CONFIG, FEATURES):
            if (self.path / name).exists():
                shutil.copy2(self.path / name, scratch / name)
        if self.checkpoints.exists():
            steps = [p for p in self.checkpoints.iterdir() if p.name.isdigit()]
            for step in steps:
                shutil.copytree(step, scratch / CHECKPOINTS / step.name)
        if target.exists():
            target.rmdir()
        scratch.rename(target)
        return Workdir(target)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _locked(descriptor: int) -> bool:
    """Takes the lock. A worker just forked by a run that was killed may hold it for a moment longer."""
    for _ in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return True
    return False
