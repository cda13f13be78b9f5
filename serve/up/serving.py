"""What answers requests: opened, checked and warmed as a whole, replaced as a whole, changed never.

Its parts are a tower (an artefact), an index, and a funnel; which there are follows from the folder that the server
was given. A part whose files have not changed is taken over from the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.manifest import MANIFEST
from serve.artifact import LATEST, SIGNATURE, Artifact, is_artifact, load, resolve
from serve.forward import SMALLEST
from serve.index.base import Index
from serve.index.where import Where
from serve.inputs import needed
from serve.request import RequestEncoder
from serve.signature import weights_version
from serve.up.config import Up
from serve.up.errors import Problem

QUERY = "query"
"""Output of a two-tower model that searches an index of its items."""

Stamp = tuple[str, int, int]


@dataclass(frozen=True)
class Places:
    """Where the parts lie, and which version of their files."""

    artifact: Path | None = None
    index: Path | None = None
    funnel: Path | None = None

    def stamps(self) -> dict[str, Stamp]:
        return {name: _stamp(path) for name, path in vars(self).items() if path is not None}


@dataclass(frozen=True)
class Ranking:
    scores: dict[str, list[Any]]
    order: list[int]
    rejects: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)


class Serving:
    def __init__(self, config: Up, *, before: Serving | None = None):
        places = find(config)
        self.stamps = places.stamps()

        def kept(part: str) -> Any:
            same = before is not None and before.stamps.get(part) == self.stamps.get(part)
            return getattr(before, part) if same else None

        self.artifact: Artifact | None = None
        self.index: Index | None = None
        self.funnel: Any = None
        if places.artifact is not None:
            self.artifact = kept("artifact") or load(places.artifact, max_batch=config.max_batch)
            features = needed(self.artifact.features, inputs=self.artifact.inputs)
            self.encoder = RequestEncoder(features, vocabularies=self.artifact.vocabularies)
        if places.index is not None:
            from serve.index.open import open_index

            self.index = kept("index") or open_index(places.index)
        if places.funnel is not None:
            from serve.funnel import open_funnel

            self.funnel = kept("funnel") or open_funnel(places.funnel)
        self.name = config.name or (self._class() if before is None else before.name)
        self.by_user = self._searches_by_user()

    @property
    def versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.artifact is not None:
            found["model"] = self.artifact.version
        if self.index is not None:
            found["index"] = self.index.model
        if self.funnel is not None:
            found["funnel"] = self.stamps["funnel"][0]
        return found

    def warm(self) -> None:
        """Compiles every batch size that a request can meet."""
        if self.artifact is not None:
            for rows in _sizes(self.artifact.forward.max_batch):
                self.artifact(_zeros(self.artifact, rows=rows))
                if self.shared:
                    self.artifact.request(_zeros(self.artifact, rows=rows, once=self.shared))
        if self.index is not None and len(self.index):
            self.index.search(np.ones((1, self.index.dim), np.float32), k=10)

    @property
    def shared(self) -> frozenset[str]:
        """Inputs that a request holds once; none where the artefact has no program for requests."""
        assert self.artifact is not None
        return frozenset(self.artifact.signature.get("request", {}).get("shared", ()))

    def rank(self, user: Mapping[str, Any], candidates: Mapping[str, Sequence[Any]], *, by: str | None) -> Ranking:
        """Scores of raw candidates for a raw user, by the tower alone."""
        artifact = self.tower()
        key = self._key(by)
        encoded = self.encoder(user, candidates)
        if not len(encoded.keep):
            first = encoded.rejects[0]
            place = f"candidates.{first['field']}[{first['candidate']}]"
            raise Problem(422, f"no candidate can be scored; {place}: {first['why']}", field=place)
        if self.shared:
            outputs = artifact.request(encoded.rows)
        else:
            once = {name for feature in self.encoder.user.all for name in feature.arrays()}
            many = len(encoded.keep)
            outputs = artifact({n: np.repeat(a, many, axis=0) if n in once else a for n, a in encoded.rows.items()})
        finite(outputs)
        order = encoded.keep[np.argsort(-outputs[key], kind="stable")].tolist() if key is not None else []
        return Ranking(encoded.spread(outputs), order, encoded.rejects, encoded.notes)

    def query(self, user: Mapping[str, Any]) -> np.ndarray:
        """The user tower's vector, [1, d]."""
        artifact = self.tower()
        if not self.by_user:
            raise Problem(409, f"the model has no output {QUERY!r} that would search this index; send vectors")
        rows, _ = self.encoder.encode_user(user)
        vector = artifact({**_zeros(artifact, rows=1), **rows})[QUERY]
        finite({QUERY: vector})
        return vector

    def search(self, vectors: np.ndarray, *, k: int, where: Where | None) -> tuple[list[list[Any]], list[list[float]]]:
        """Ids and scores of what there is of the k nearest, best first."""
        index = self.searched()
        ids, scores = index.search(vectors, k=k, where=where)
        found = np.isfinite(scores)
        return (
            [i[f].tolist() for i, f in zip(ids, found, strict=True)],
            [s[f].tolist() for s, f in zip(scores, found, strict=True)],
        )

    def tower(self) -> Artifact:
        if self.artifact is None:
            raise Problem(404, "no model is served here; start the server with an artefact")
        return self.artifact

    def searched(self) -> Index:
        if self.index is None:
            raise Problem(404, "no index is served here; start the server with --index")
        return self.index

    def _key(self, by: str | None) -> str | None:
        """The output that candidates are ordered by."""
        plain = [name for name, (shape, _) in self.tower().outputs.items() if not shape]
        if by is not None and by not in plain:
            raise Problem(400, f"by is {by!r}; candidates can be ordered by {', '.join(plain)}", field="by")
        if by is None and "score" not in plain and len(plain) != 1:
            return None
        return by or ("score" if "score" in plain else plain[0])

    def _class(self) -> str:
        model = "" if self.artifact is None else str(self.artifact.signature.get("model", ""))
        return model.rpartition(":")[2].lower() or "adloom"

    def _searches_by_user(self) -> bool:
        """Whether the tower's query vectors search this index; refuses an index of another model's items."""
        if self.artifact is None or self.index is None or QUERY not in self.artifact.outputs:
            return False
        made_by = weights_version(
            {name: np.asarray(a) for name, a in self.artifact.forward.weights.items()},
            step=self.artifact.signature["step"],
            config=self.artifact.signature.get("config", ""),
        )
        if self.index.model not in ("", made_by):
            raise UserError(
                f"the index holds vectors of model {self.index.model!r}, the tower's are of {made_by!r}; "
                "build the index of the same checkpoint that was exported"
            )
        if self.artifact.outputs[QUERY][0] != (self.index.dim,):
            raise UserError(f"the index holds vectors of {self.index.dim}, the tower's {QUERY} is wider or narrower")
        alone = {n: np.ones_like(a) for n, a in _zeros(self.artifact, rows=1).items()}
        once = {name for feature in self.encoder.user.all for name in feature.arrays()}
        blank = {n: a if n in once else np.zeros_like(a) for n, a in alone.items()}
        return bool(np.array_equal(self.artifact(alone)[QUERY], self.artifact(blank)[QUERY]))


def find(config: Up) -> Places:
    """What lies at the path that the server was given."""
    path, index = config.path, config.index
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give what serve export, index or a funnel's stage wrote")
    if (path / "funnel.json").is_file():
        return Places(funnel=path, index=index)
    if is_artifact(path):
        return Places(artifact=resolve(path), index=index)
    if is_artifact(path / "export"):
        return Places(artifact=resolve(path / "export"), index=index)
    if (path / MANIFEST).is_file() or (path / LATEST).is_file():
        return Places(index=path)
    raise UserError(f"{path} holds nothing to serve; of a workdir, python -m serve export {path} --request comes first")


def finite(outputs: Mapping[str, np.ndarray]) -> None:
    for name, array in outputs.items():
        if not np.isfinite(array.astype(np.float32) if array.dtype.kind not in "iufb" else array).all():
            raise Problem(422, f"output {name!r} is not finite: the inputs are far from what the model was trained on")


def _stamp(path: Path) -> Stamp:
    """Changes when another version is put in place."""
    if (path / SIGNATURE).is_file() or not (path / LATEST).is_file():
        marks = [p for p in (path / MANIFEST, path / "funnel.json") if p.is_file()]
        version = path.name
    else:
        marks, version = [path / LATEST], (path / LATEST).read_text().strip()
    if not marks:
        raise UserError(f"{path} has no {MANIFEST}: it was cut short; write it again")
    stats = marks[0].stat()
    return version, stats.st_mtime_ns, stats.st_ino


def _sizes(most: int) -> list[int]:
    sizes = [SMALLEST]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


def _zeros(artifact: Artifact, *, rows: int, once: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
    return {
        name: np.zeros((1 if name in once else rows, *shape), dtype) for name, (shape, dtype) in artifact.inputs.items()
    }
