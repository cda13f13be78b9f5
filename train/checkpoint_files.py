"""The files of checkpoints: their names, and the manifest that tells a sound one from a damaged one."""

import errno
import json
import math
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

from train.workdir import write_json

MANIFEST = "manifest.json"
UNFINISHED = ".orbax-checkpoint-tmp"
CORRUPT, DELETED, HELD = "corrupt-", "deleted-", "held-"
# Orbax writes these after the manifest, and nothing reads them.
UNLISTED = (MANIFEST, "commit_success.txt", "_CHECKPOINT_METADATA")


def steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if re.fullmatch("0|[1-9][0-9]*", p.name) and p.is_dir())


def clean(directory: Path) -> None:
    """Removes what a killed process left half written or half deleted."""
    for path in directory.iterdir():
        if UNFINISHED in path.name or path.name.startswith(DELETED):
            shutil.rmtree(path)
    release(directory)


def hold(directory: Path, *, step: int) -> None:
    """Out of the way of another of the same step, until that is whole."""
    (directory / str(step)).rename(directory / f"{HELD}{step}")


def release(directory: Path) -> None:
    """Removes what was held, or puts it back where nothing took its place."""
    for path in directory.glob(f"{HELD}*"):
        place = path.with_name(path.name.removeprefix(HELD))
        if place.exists():
            shutil.rmtree(path.rename(directory / f"{DELETED}{place.name}"))
        else:
            path.rename(place)


def remove(directory: Path, *, step: int) -> None:
    """By way of another name, so that a kill in the midst leaves no half checkpoint."""
    shutil.rmtree((directory / str(step)).rename(directory / f"{DELETED}{step}"))


def set_aside(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.glob(f"{CORRUPT}*"))


def move_aside(directory: Path, *, step: int) -> str:
    names = (f"{CORRUPT}{step}{f'-{n}' if n else ''}" for n in range(1000))
    name = next(name for name in names if not (directory / name).exists())
    (directory / str(step)).rename(directory / name)
    return name


def unfinished(directory: Path, *, step: int | None) -> Path:
    return directory / f"{step}{UNFINISHED}"


def seal(folder: Path) -> None:
    write_json(folder / MANIFEST, value={"files": {str(p.relative_to(folder)): _print(p) for p in _listed(folder)}})


def is_sealed(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if it is as it was written, or has no manifest."""
    if not is_sealed(folder):
        return None
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, (size, crc) in sorted(listed.items()):
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if _print(path)[1] != crc:
                return f"{name} has other contents than were written"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def _listed(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in UNLISTED)


def _print(path: Path) -> tuple[int, int]:
    """Size and CRC-32: they find damage, and hash as fast as the disk reads."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def read_meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta" / "metadata").read_text(encoding="utf-8"))


def try_meta(folder: Path) -> dict[str, Any] | None:
    """None when damaged: only restoring decides what becomes of a damaged checkpoint."""
    try:
        return read_meta(folder)
    except (OSError, ValueError):
        return None


def ranking(directory: Path) -> dict[str, Any]:
    """What the newest sound checkpoint was told to rank by."""
    for step in reversed(steps(directory)):
        if damage(directory / str(step)) is None:
            return read_meta(directory / str(step))["best"]
    return {"metric": None, "mode": "max"}


def ranked(directory: Path, *, metric: str | None, mode: str) -> list[int]:
    """Steps that have the metric, best first, the later of equals first."""
    values = {}
    for step in steps(directory) if metric is not None else []:
        meta = try_meta(directory / str(step))
        value = ((meta or {}).get("metrics") or {}).get(metric, math.nan)
        if not math.isnan(value):
            values[step] = value if mode == "max" else -value
    return sorted(values, key=lambda step: (values[step], step), reverse=True)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT}
_FULL_TEXT = re.compile(r"No space left on device|Disk quota exceeded|File too large|Read-only file")


def _causes(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_write_error(error: BaseException) -> bool:
    return any((isinstance(e, OSError) and e.errno in _FULL) or _FULL_TEXT.search(str(e)) for e in _causes(error))


def reason(error: BaseException) -> str:
    """The words of the operating system; tensorstore wraps them in pages of its own."""
    for e in _causes(error):
        if isinstance(e, OSError) and e.errno in _FULL:
            return e.strerror or str(e)
        if found := _FULL_TEXT.search(str(e)):
            return found.group()
    return str(error)
