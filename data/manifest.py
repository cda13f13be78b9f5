"""Folders that say what they hold: a manifest with checksums, which name the file that broke."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from data.errors import UserError

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any, *, sort: bool = True) -> None:
    """Replaces `path` in one step; `sort=False` keeps the order of names, where it means something."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2, sort_keys=sort) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


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


def write_manifest(folder: Path, *, files: dict[str, str] | None = None, **fields: Any) -> str:
    """Lists `files` with their checksums, or all that `folder` holds, and returns the digest of the list."""
    files = checksums(folder) if files is None else files
    write_json(folder / MANIFEST, {**fields, "digest": digest(files), "files": files})
    return digest(files)
