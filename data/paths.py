"""Paths that a config may write with a variable, so that a config names no machine."""

import os
import re
from pathlib import Path

from data.errors import UserError


def expand(path: str) -> Path:
    """`path` with $NAME and ~ filled in."""
    for name in re.findall(r"\$\{?(\w+)", path):
        if not os.environ.get(name):
            raise UserError(f"{path}: the environment variable {name} is not set: export it, or override the path")
    return Path(os.path.expandvars(path)).expanduser()
