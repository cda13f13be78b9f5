"""Where the parts of what is served lie, and which version of their files lies there now."""

from dataclasses import dataclass
from pathlib import Path

from data.errors import UserError
from data.manifest import MANIFEST
from serve import versions
from serve.artifact import is_artifact
from serve.funnel_config import FUNNEL
from serve.index.open import is_live
from serve.index.store import ABOUT, AGAIN
from serve.up.config import Up

Stamp = tuple[str, int, int]


@dataclass(frozen=True)
class Places:
    artifact: Path | None = None
    queries: Path | None = None
    index: Path | None = None
    funnel: Path | None = None

    def stamps(self, config: Up) -> dict[str, Stamp]:
        """By part; another stamp means that other files are to be opened."""
        found = {name: _stamp(path) for name, path in vars(self).items() if path is not None and name != "index"}
        if self.index is not None:
            # An index that takes our updates writes its own versions; another folder in its place is another index.
            own = is_live(self.index) and not config.read_only
            found["index"] = ("", 0, self.index.stat().st_ino) if own else _stamp(self.index)
        return found


def find(config: Up) -> Places:
    """What lies at the paths that the server was given."""
    path, index, queries = config.path, config.index, config.queries
    for given in (path, index, queries):
        if given is not None and not given.is_dir():
            raise UserError(f"{given} is not a folder; give what serve export, index or a funnel's stage wrote")
    if (path / FUNNEL).is_file():
        return Places(funnel=path, index=index, queries=queries)
    for folder in (path, path / "export"):
        if folder.is_dir() and is_artifact(folder):
            return Places(artifact=folder, index=index, queries=queries)
    if (_opened(path) / ABOUT).is_file():
        return Places(index=path, queries=queries)
    raise UserError(f"{path} holds nothing to serve; of a workdir, python -m serve export {path} --request comes first")


def _opened(path: Path) -> Path:
    return versions.resolve(path, again=AGAIN)


def _stamp(path: Path) -> Stamp:
    opened = _opened(path)
    for name in (FUNNEL, MANIFEST):
        if (opened / name).is_file():
            stats = (opened / name).stat()
            return opened.name, stats.st_mtime_ns, stats.st_ino
    raise UserError(f"{opened} has no {MANIFEST}: it was cut short; write it again")
