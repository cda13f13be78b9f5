"""What answers requests: opened, checked and warmed as a whole, replaced as a whole; live indexes alone change.

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
from serve.artifact import Artifact, load
from serve.forward import SMALLEST
from serve.funnel import Funnel, open_funnel
from serve.index.base import Index
from serve.index.live import LiveIndex
from serve.index.open import is_live, open_index
from serve.index.where import Where
from serve.inputs import needed
from serve.request import RequestEncoder
from serve.up.config import Up
from serve.up.errors import Problem
from serve.up.places import find

VECTOR = "vector"
"""What an artefact of export --vectors gives."""


@dataclass(frozen=True)
class Ranking:
    scores: dict[str, list[Any]]
    order: list[int]
    rejects: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)


class Serving:
    def __init__(self, config: Up, *, before: Serving | None = None):
        places = find(config)
        self.stamps = places.stamps(config)

        def kept(part: str) -> Any:
            same = before is not None and before.stamps.get(part) == self.stamps.get(part)
            return getattr(before, part) if same else None

        self.artifact: Artifact | None = None
        self.queries: Artifact | None = None
        self.index: Index | None = None
        self.funnel: Funnel | None = None
        if places.artifact is not None:
            self.artifact = kept("artifact") or load(places.artifact, max_batch=config.max_batch)
            self.encoder = _encoder(self.artifact)
        if places.queries is not None:
            self.queries = kept("queries") or load(places.queries, max_batch=SMALLEST)
            self.query_encoder = _encoder(self.queries)
        if places.funnel is not None:
            last = None if before is None else before.funnel
            self.funnel = kept("funnel") or open_funnel(places.funnel, write=not config.read_only, before=last)
        if places.index is not None:
            try:
                self.index = kept("index") or self._of_funnel(places.index) or self._opened(places.index, config)
                self._check_queries()
            except BaseException:
                self.close(but=before)
                raise
        self.name: str = config.name or (self._class() if before is None else before.name)

    @property
    def versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.artifact is not None:
            found["model"] = self.artifact.version
        if self.index is not None:
            found["index"] = self.index.model
        if self.queries is not None:
            found["queries"] = self.queries.version
        if self.funnel is not None:
            found |= self.funnel.versions
        return found

    def close(self, *, but: Serving | None) -> None:
        """Lets go of indexes that take updates, unless `but` goes on with them. Searches in them still work."""
        kept = [] if but is None else but.indexes()
        for index in self.indexes():
            if isinstance(index, LiveIndex) and not any(index is other for other in kept):
                index.close()

    def indexes(self) -> list[Index]:
        """Of the funnel and beside it, each once."""
        found = [] if self.funnel is None else self.funnel.indexes.all()
        beside = self.index is not None and not any(self.index is other for other in found)
        return [self.index, *found] if self.index is not None and beside else found

    def changed(self, channel: str | None) -> Index:
        """The index that updates are for: that of a funnel's channel, or the one that is searched."""
        if self.funnel is None:
            if channel is not None:
                raise Problem(400, "channel is of a funnel, and none is served here", field="channel")
            return self.searched()
        if channel is None and self.index is not None:
            return self.index
        searched = {name: c.index for name, c in self.funnel.channels.items() if c.index is not None}
        if channel is not None:
            if channel not in searched:
                names = ", ".join(searched) or "none"
                raise Problem(400, f"no channel {channel!r} searches an index; those that do: {names}", field="channel")
            return searched[channel]
        live = {name: index for name, index in searched.items() if isinstance(index, LiveIndex)}
        if len({id(index) for index in live.values()}) > 1:
            raise Problem(
                400, f"the channels {', '.join(live)} have live indexes; name one in channel", field="channel"
            )
        if not live:
            raise Problem(409, "no index of this funnel can be changed; build one of them with --engine live")
        return next(iter(live.values()))

    def warm(self) -> None:
        """Compiles every batch size that a request can meet."""
        if self.artifact is not None:
            for rows in _sizes(self.artifact.forward.max_batch):
                self.artifact(_zeros(self.artifact, rows=rows))
                if self.shared:
                    self.artifact.request(_zeros(self.artifact, rows=rows, once=self.shared))
        if self.funnel is not None:
            self.funnel.warm()
        if self.queries is not None:
            self.queries(_zeros(self.queries, rows=1))
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
        """The vector of a raw user, [1, d]."""
        if self.queries is None:
            raise Problem(409, "no tower is served that gives a user's vector; start with --queries, or send vectors")
        rows, _ = self.query_encoder.encode_user(user)
        vectors = self.queries(rows)
        finite(vectors)
        return vectors[VECTOR]

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

    def _of_funnel(self, path: Path) -> Index | None:
        """One that the funnel has open for updates: a folder is written by one alone."""
        return None if self.funnel is None else self.funnel.indexes.at(path)

    @staticmethod
    def _opened(path: Path, config: Up) -> Index:
        return open_index(path, write=is_live(path) and not config.read_only)

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

    def _check_queries(self) -> None:
        """Refuses an index of another model's items than the queries are of: its scores would mean nothing."""
        if self.queries is None or self.index is None:
            return
        made_by = self.queries.signature.get("vectors", {}).get("model")
        if made_by is None or self.query_encoder.item.all:
            raise UserError(f"{self.queries.path} gives no user's vector; python -m serve export W --vectors query")
        if made_by != self.index.model:
            raise UserError(
                f"the index holds vectors of model {self.index.model!r}, {self.queries.path} gives queries of "
                f"{made_by!r}; build the index again from the same checkpoint"
            )


def _encoder(artifact: Artifact) -> RequestEncoder:
    return RequestEncoder(needed(artifact.features, inputs=artifact.inputs), vocabularies=artifact.vocabularies)


def finite(outputs: Mapping[str, np.ndarray]) -> None:
    for name, array in outputs.items():
        if not np.isfinite(array.astype(np.float32) if array.dtype.kind not in "iufb" else array).all():
            raise Problem(422, f"output {name!r} is not finite: the inputs are far from what the model was trained on")


def _sizes(most: int) -> list[int]:
    sizes = [SMALLEST]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


def _zeros(artifact: Artifact, *, rows: int, once: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
    return {
        name: np.zeros((1 if name in once else rows, *shape), dtype) for name, (shape, dtype) in artifact.inputs.items()
    }
