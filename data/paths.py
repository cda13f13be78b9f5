"""Paths that a config may write with a variable, so that a config names no machine."""

import os
import re
from pathlib import Path

from data.errors import UserError


def expand(path: str) -> Path:
    """`path` with $NAME and ~ filled in."""
    return Path(filled(path)).expanduser()


def filled(text: str) -> str:
    """`text` with $NAME filled in."""
    for name in re.findall(r"\$\{?(\w+)", text):
        if not os.environ.get(name):
            raise UserError(f"{text}: the environment variable {name} is not set: export it, or override the path")
    return os.path.expandvars(text)
