"""Channels of a funnel, opened: each finds candidates for one request, of those that meet its filter, and `gather`
merges them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.columns import lists
from data.errors import UserError
from serve.artifact import Artifact, load
from serve.content import ContentTower, Kind
from serve.features.store import FeatureStore, Item, open_store
from serve.funnel_config import ByContent, ByItem, ByList, ByTower, Channel, FunnelConfig, Merge
from serve.funnel_indexes import Indexes
from serve.index.base import Index
from serve.index.where import Where
from serve.inputs import needed
from serve.request import RequestEncoder

RECIPROCAL = 60
"""The constant of reciprocal rank fusion, as in its paper."""


@dataclass(frozen=True)
class Asked:
    """What channels are asked with. `field` gives a value of the user."""

    user: Mapping[str, Any]
    item: Item | None = None
    vector: np.ndarray | None = None
    where: Where | None = None
    meets: Callable[[Sequence[Item]], np.ndarray] | None = None
    """Which items meet `where` by their stored features, for channels that have no index to ask."""
    text: str | None = None
    picture: bytes | None = None


@dataclass(frozen=True)
class Source:
    """Where a candidate stood in a channel: its rank there, from 1, and its score if the channel has scores."""

    rank: int
    score: float | None = None


@dataclass
class Candidate:
    id: Item
    score: float = 0.0
    sources: dict[str, Source] = field(default_factory=dict)


Found = Sequence[tuple[Item, float | None]]
"""Ids and scores, best first, none twice."""


class Opened(Protocol):
    versions: dict[str, str]
    """What it was opened from, by part."""
    fields: frozenset[str]
    """Fields of the user that it reads."""

    @property
    def index(self) -> Index | None:
        """What it searches, if it searches."""
        ...

    def needs(self, asked: Asked) -> frozenset[str]:
        """Those that it reads for this request."""
        ...

    def find(self, asked: Asked, *, quota: int) -> Found: ...


class TowerChannel:
    """The encoding is that of batch scoring: raw fields, declared features, the exported program."""

    def __init__(self, config: ByTower, *, folder: Path, indexes: Indexes):
        self.index: Index = indexes.open(config.index)
        self.versions = {"index": self.index.model}
        self.fields: frozenset[str] = frozenset()
        self._tower: Artifact | None = None
        if config.tower is not None:
            self._tower = tower = load(folder / config.tower, max_batch=8)
            made_by = tower.signature.get("vectors", {}).get("model")
            if made_by is None:
                raise UserError(f"{tower.path} gives no query vectors; python -m serve export WORKDIR --vectors query")
            if made_by != self.index.model:
                raise UserError(
                    f"{folder / config.index} holds vectors of model {self.index.model!r}, but {tower.path} gives "
                    f"queries of {made_by!r}; build the index again from the same checkpoint"
                )
            self._encode = RequestEncoder(needed(tower.features, inputs=tower.inputs), vocabularies=tower.vocabularies)
            if self._encode.item.all:
                raise UserError(
                    f"{tower.path} reads {self._encode.item.all[0].name!r}, which is the item's, not the user's"
                )
            self.fields = frozenset(f.name for f in self._encode.user.all)
            self.versions["tower"] = tower.version

    def needs(self, asked: Asked) -> frozenset[str]:
        return self.fields if asked.vector is None else frozenset()

    def find(self, asked: Asked, *, quota: int) -> Found:
        if asked.vector is not None:
            query = np.asarray(asked.vector, np.float32)
        elif self._tower is None:
            return []  # nothing to search by: the request says nothing of this channel
        else:
            rows, _ = self._encode.encode_user({name: asked.user[name] for name in self.fields})
            query = self._tower(rows)["vector"][0]
        return _paired(*self.index.search(query[None], k=quota, where=asked.where))


class ItemChannel:
    """The best score over the seeds; seeds are not among what is found, and one without a vector says nothing."""

    def __init__(self, config: ByItem, *, folder: Path, indexes: Indexes):
        self._config = config
        self.index: Index = indexes.open(config.index)
        self._vectors: FeatureStore = open_part(config.vectors, folder=folder)
        self.versions = {"index": self.index.model, "vectors": self._vectors.version}
        self.fields = frozenset((config.seeds,))

    def needs(self, asked: Asked) -> frozenset[str]:
        return self.fields if asked.item is None else frozenset()

    def find(self, asked: Asked, *, quota: int) -> Found:
        field, last = self._config.seeds, self._config.last
        seeds = [asked.item] if asked.item is not None else list(asked.user.get(field) or ())[-last:]
        if not seeds:
            return []
        looked = self._vectors.get(seeds, names=["vector"])
        if not looked.found.any():
            return []
        rows = lists(looked.columns["vector"].combine_chunks().filter(looked.found))
        queries = rows.values.to_numpy(zero_copy_only=False)[rows.starts[:, None] + np.arange(rows.lengths[0])]
        ids, scores = self.index.search(queries.astype(np.float32), k=quota + len(seeds), where=asked.where)
        best: dict[Item, float] = {}
        for id, score in _paired(ids.reshape(1, -1), scores.reshape(1, -1)):
            if id not in seeds:
                best[id] = max(best.get(id, -np.inf), score)
        return sorted(best.items(), key=lambda pair: -pair[1])[:quota]  # of equal ones the first found comes first


class ContentChannel:
    """The mean of the vectors of what the request holds; nothing where it holds neither words nor a picture."""

    fields: frozenset[str] = frozenset()

    def __init__(self, config: ByContent, *, folder: Path, indexes: Indexes):
        self.index: Index = indexes.open(config.index)
        self.versions = {"index": self.index.model}
        tokenizer = None if config.tokenizer is None else folder / config.tokenizer
        self._towers: dict[Kind, ContentTower] = {}
        if config.text is not None:
            path = folder / config.text
            self._towers["text"] = ContentTower(path, kind="text", index=self.index, tokenizer=tokenizer)
        if config.picture is not None:
            self._towers["picture"] = ContentTower(folder / config.picture, kind="picture", index=self.index)
        self.versions |= {kind: tower.version for kind, tower in self._towers.items()}
        self.reads = frozenset(self._towers)

    def needs(self, asked: Asked) -> frozenset[str]:
        return self.fields

    def find(self, asked: Asked, *, quota: int) -> Found:
        given = {"text": asked.text, "picture": asked.picture}
        vectors = [tower(given[kind]) for kind, tower in self._towers.items() if given[kind] is not None]
        if not vectors:
            return []
        query = np.mean(np.stack(vectors), axis=0, keepdims=True)
        return _paired(*self.index.search(query, k=quota, where=asked.where))


class ListChannel:
    index: Index | None = None

    def __init__(self, config: ByList, *, folder: Path):
        self._config = config
        self._lists: FeatureStore = open_part(config.lists, folder=folder)
        self.versions = {"lists": self._lists.version}
        self.fields = frozenset(() if config.key is None else (config.key,))

    def needs(self, asked: Asked) -> frozenset[str]:
        return self.fields

    def find(self, asked: Asked, *, quota: int) -> Found:
        config = self._config
        wanted = [] if config.key is None else [asked.user.get(config.key)]
        keys = [key for key in (*wanted, config.default) if key is not None]
        if not keys:
            return []
        looked = self._lists.get(keys, names=[config.items])
        if not looked.found.any():
            return []
        items = list(dict.fromkeys(looked.columns[config.items][int(np.argmax(looked.found))].as_py() or []))
        if asked.meets is not None:
            items = [item for item, fits in zip(items, asked.meets(items).tolist(), strict=True) if fits]
        return [(item, None) for item in items[:quota]]


def open_channel(config: Channel, *, folder: Path, indexes: Indexes) -> Opened:
    match config:
        case ByTower():
            return TowerChannel(config, folder=folder, indexes=indexes)
        case ByItem():
            return ItemChannel(config, folder=folder, indexes=indexes)
        case ByContent():
            return ContentChannel(config, folder=folder, indexes=indexes)
        case ByList():
            return ListChannel(config, folder=folder)
    raise UserError(f"{type(config).__name__} is no channel that this version opens")


def open_part(where: str, *, folder: Path) -> FeatureStore:
    """A store in the funnel's folder, or one elsewhere by its address."""
    return open_store(where if "://" in where else str(folder / where))


def gather(
    config: FunnelConfig, *, opened: Mapping[str, Opened], asked: Asked, skip: Collection[str]
) -> list[Candidate]:
    """Candidates of all channels, each once, best first."""
    merged: dict[Item, Candidate] = {}
    for name, channel in opened.items():
        if name in skip:
            continue
        settings = config.channels[name]
        found = channel.find(asked, quota=settings.quota)
        worth = _worth([score for _, score in found], merge=config.merge)
        for rank, ((id, score), value) in enumerate(zip(found, worth, strict=True), start=1):
            candidate = merged.setdefault(id, Candidate(id))
            candidate.score += settings.weight * value
            candidate.sources[name] = Source(rank, score)
    return sorted(merged.values(), key=lambda candidate: -candidate.score)


def _worth(scores: Sequence[float | None], *, merge: Merge) -> list[float]:
    """Of a channel's candidates, in its order; a list without scores goes by rank in either way."""
    count = len(scores)
    if merge.normalise == "rank":
        return [1.0 / (RECIPROCAL + rank) for rank in range(1, count + 1)]
    known = [score for score in scores if score is not None]
    if len(known) < count:
        return [1.0 - rank / count for rank in range(count)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in known]


def _paired(ids: np.ndarray, scores: np.ndarray) -> list[tuple[Item, float]]:
    """Of the first query; what stands beside -inf is nothing."""
    return [(id, score) for id, score in zip(ids[0].tolist(), scores[0].tolist(), strict=True) if score > -np.inf]
