"""Puts the parts of a funnel into one folder that can be moved, and opens it to see that they belong together."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.manifest import write_json
from serve import artifact
from serve.display import EXAMPLES, example_users
from serve.files import settle, staged
from serve.funnel import open_funnel
from serve.funnel_config import FUNNEL, ByContent, ByItem, ByList, ByTower, Channel, FunnelConfig
from train.snapshot import dump


def build_funnel(config: FunnelConfig, *, output: Path, examples: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Writes the folder `output` in one step and returns the versions of its parts.

    Paths of `config` are where the parts are now; stores in Redis stay where they are. `examples` are raw
    fields of users that its page offers; those that no part reads are left out.
    """
    with staged(output.parent) as work:
        parts = _Parts(work)
        stored: dict[str, Any] = dump(config)
        stored["ranker"] = parts.take(artifact.resolve(Path(config.ranker)), name="ranker")
        stored["features"] = parts.take_store(config.features, name="features")
        if config.calibration is not None:
            stored["calibration"] = parts.take(Path(config.calibration), name="calibration.json")
        for name, channel in config.channels.items():
            stored["channels"][name] |= _channel(channel, name=name, parts=parts)
        if config.display.store is not None:
            stored["display"]["store"] = parts.take_store(config.display.store, name="display")
        write_json(work / FUNNEL, stored, sort=False)  # the order of channels is that of equal candidates
        funnel = open_funnel(work)
        if examples:
            write_json(work / EXAMPLES, example_users(examples, fields=funnel.fields), sort=False)
        versions = funnel.versions
        settle(work, output)
    return versions


class _Parts:
    """Copies each part once, whoever names it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._taken: dict[Path, str] = {}

    def take(self, source: Path, *, name: str) -> str:
        if not source.exists():
            raise UserError(f"{source} is not there; the funnel needs it as its {name}")
        key = source.resolve()
        if key not in self._taken:
            target = self._folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(key, target)
            else:
                shutil.copyfile(key, target)
            self._taken[key] = name
        return self._taken[key]

    def take_store(self, where: str, *, name: str) -> str:
        return where if "://" in where else self.take(Path(where), name=name)


def _channel(channel: Channel, *, name: str, parts: _Parts) -> dict[str, str]:
    """Where the parts of a channel lie in the folder."""
    match channel:
        case ByTower(tower=None):
            return {"index": parts.take(Path(channel.index), name=f"indexes/{name}")}
        case ByTower():
            tower = artifact.resolve(Path(str(channel.tower)))
            index = parts.take(Path(channel.index), name=f"indexes/{name}")
            return {"index": index, "tower": parts.take(tower, name=f"towers/{name}")}
        case ByItem():
            index = parts.take(Path(channel.index), name=f"indexes/{name}")
            return {"index": index, "vectors": parts.take_store(channel.vectors, name=f"vectors/{name}")}
        case ByContent():
            found = {"index": parts.take(Path(channel.index), name=f"indexes/{name}")}
            for kind in ("text", "picture"):
                if (tower := getattr(channel, kind)) is not None:
                    found[kind] = parts.take(artifact.resolve(Path(tower)), name=f"towers/{name}_{kind}")
            if channel.tokenizer is not None:
                found["tokenizer"] = parts.take(Path(channel.tokenizer), name=f"tokenizers/{name}.json")
            return found
        case ByList():
            return {"lists": parts.take_store(channel.lists, name=f"lists/{name}")}
    raise UserError(f"{type(channel).__name__} is no channel that a funnel can hold")
