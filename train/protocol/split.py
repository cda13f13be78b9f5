"""The rows that a table is measured on: built from the owner's files, and known by their content."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import chz
import numpy as np

from data.errors import UserError
from data.paths import expand
from data.sources import Source, SourceConfig
from train.pipeline import Results, Say, Stage

CHUNK = 1 << 14


@chz.chz
class Build(Stage):
    """A public data set in this stage's folder; sources name it "@<this stage>/<name>/<config>/<version>"."""

    name: str = chz.field(doc="data set, as in python -m data build --list")
    manual: str = chz.field(doc="folder with the files of the release; may hold variables such as $ADLOOM_DATA")
    config: str | None = chz.field(default=None, doc="variant of the data set")

    def run(self, *, out: Path, say: Say) -> Results:
        from data.builders import base  # TFDS takes seconds to import, and a pipeline is read without it

        path = base.build(self.name, manual=expand(self.manual), out=out, config=self.config)
        for line in base.table(path).splitlines():
            say(line)
        rows = base.metadata(path)["statistics"]["splits"]
        return {f"{split}/rows": found["rows"] for split, found in rows.items()}


@chz.chz
class Part:
    """What a part of the data must hold."""

    source: SourceConfig
    rows: int
    sha256: str = chz.field(doc="of its encoded arrays, as this stage says them")
    arrays: tuple[str, ...] = chz.field(
        default=(), doc="arrays that count; none: all. Computed floats may differ in their last bit between machines"
    )


@chz.chz
class Split(Stage):
    """Stops where the parts are not the rows that the table's figures are about."""

    parts: Mapping[str, Part] = chz.field(doc="by name, such as train and valid")

    def run(self, *, out: Path, say: Say) -> Results:
        results: Results = {}
        wrong = []
        for name, part in self.parts.items():
            source = part.source.make()
            found = (len(source), digest(source, arrays=part.arrays))
            say(f"{name}: {found[0]:,} rows, sha256 {found[1]}")
            for what, is_, due in zip(("rows", "sha256"), found, (part.rows, part.sha256), strict=True):
                results[f"{name}/{what}"] = is_
                if is_ != due:
                    wrong.append(f"{name} has {what} {is_}, the config says {due}")
        if wrong:
            raise UserError(
                f"{'; '.join(wrong)}: these are other rows than the table's. Get the right files, or change the config"
            )
        return results


def digest(source: Source, *, arrays: tuple[str, ...] = ()) -> str:
    """sha256 over names, types and contents of the arrays, in the source's order."""
    declared = source.features.arrays()
    for name in arrays:
        if name not in declared:
            raise UserError(f"split.arrays names {name!r}; the source has {', '.join(sorted(declared))}")
    each = {name: hashlib.sha256() for name in sorted(arrays or declared)}
    for start in range(0, len(source), CHUNK):
        rows = source.take(np.arange(start, min(start + CHUNK, len(source))))
        for name, content in each.items():
            content.update(np.ascontiguousarray(rows[name]).tobytes())
    whole = hashlib.sha256()
    for name, content in each.items():
        shape, dtype = declared[name]
        whole.update(f"{name} {np.dtype(dtype).str} {list(shape)} {content.hexdigest()}\n".encode())
    return whole.hexdigest()
