"""Folders of versions: each version is written once, and `latest` names the one that is opened."""

from pathlib import Path

from data.errors import UserError
from data.manifest import MANIFEST

LATEST = "latest"


def point(output: Path, *, name: str) -> None:
    """Makes output/name the version that is opened, in one step."""
    pointer = output / f".{LATEST}.part"
    pointer.write_text(name + "\n")
    pointer.replace(output / LATEST)


def resolve(path: Path, *, again: str) -> Path:
    """The version folder that `path` means; `again` says how such a folder is made."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; {again}")
    if (path / MANIFEST).is_file() or not (path / LATEST).is_file():
        return path
    version = path / (path / LATEST).read_text().strip()
    if not version.is_dir():
        raise UserError(f"{path / LATEST} names {version.name!r}, which is not there; {again}")
    return version
