"""Files and folders that are there whole or not at all, with checksums that name the one that broke."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import UserError

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


@contextlib.contextmanager
def staged(parent: Path) -> Iterator[Path]:
    """A fresh folder beside the final one; what `settle` has not taken when the block ends is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".staged-", dir=parent))
    work.chmod(0o755)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def settle(work: Path, path: Path) -> None:
    """Makes the staged folder `path`, in place of what stood there."""
    for file in work.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes for the owner's eyes alone
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=path.parent)) / path.name
        path.rename(old)
        work.rename(path)
        shutil.rmtree(old.parent)
    else:
        work.rename(path)


def digest(files: dict[str, str]) -> str:
    """One name for the content of many files."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(folder)): sha256(p) for p in files}


def verify(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest of `folder`, once every file that it lists has been found unchanged."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is not {kind}: it has no {MANIFEST}")
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("digest") != digest(files):
        raise UserError(f"{folder / MANIFEST} is damaged: its list of files does not match its digest")
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; write {kind} again")
        if sha256(path) != wanted:
            raise UserError(f"{path} is damaged: its checksum differs from {MANIFEST}; write {kind} again")
    return manifest


def write_manifest(folder: Path, **fields: Any) -> str:
    """Lists what `folder` holds and returns the digest of it."""
    files = checksums(folder)
    write_json(folder / MANIFEST, {**fields, "digest": digest(files), "files": files})
    return digest(files)
