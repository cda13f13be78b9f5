"""Configs as JSON and back: what a workdir stores so that a fresh process rebuilds the same experiment."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import chz

from data.errors import UserError

PACKAGES = ("modules", "train", "serve", "data", "configs")
"""A snapshot names classes of these packages alone: reading one never imports anything else."""

TYPE = "$type"


def dump(value: Any) -> Any:
    """A config as plain JSON values, each object with the name of its class."""
    if chz.is_chz(value):
        cls = type(value)
        if cls.__module__.split(".")[0] not in PACKAGES:
            raise UserError(
                f"{cls.__module__}.{cls.__qualname__} is not part of adloom and cannot be stored in a config"
            )
        fields = {f.logical_name: dump(getattr(value, f.logical_name)) for f in chz.chz_fields(cls).values()}
        return {TYPE: f"{cls.__module__}:{cls.__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(k): dump(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [dump(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(f"a config holds {value!r} of type {type(value).__name__}; use numbers, strings, tuples or configs")


def load(stored: Any) -> Any:
    """The inverse of `dump`."""
    if isinstance(stored, list):
        return tuple(load(v) for v in stored)
    if not isinstance(stored, dict):
        return stored
    fields = {k: load(v) for k, v in stored.items() if k != TYPE}
    if TYPE not in stored:
        return fields
    cls = _resolve(stored[TYPE])
    known = {f.logical_name for f in chz.chz_fields(cls).values()}
    for name in fields:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{stored[TYPE]} has no field {name!r}{hint}")
    return cls(**fields)


def _resolve(name: str) -> type:
    module, _, qualname = name.partition(":")
    if module.split(".")[0] not in PACKAGES:
        raise UserError(f"refused to load {name!r}: a config may only name classes of {', '.join(PACKAGES)}")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the config names {name!r}, which this version does not have ({error})") from error
    if not chz.is_chz(found):
        raise UserError(f"refused to load {name!r}: it is not a config class")
    return found


def fingerprint(stored: Any) -> str:
    """Eight hex digits that change when a stored config does."""
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
