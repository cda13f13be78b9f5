"""The ranking stage: raw features of the user and of stored items through an exported tower, the user's part once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.columns import column, floats
from data.encode import encode
from data.errors import UserError
from data.manifest import read_json
from data.vocabulary import Vocabularies
from serve.artifact import load
from serve.calibrated import Map, read_map
from serve.features.store import FeatureStore, Item
from serve.forward import SMALLEST, bucket
from serve.funnel_config import FUNNEL, FunnelConfig
from serve.inputs import needed
from serve.request import RequestEncoder

MAX_BATCH = 4096


@dataclass(frozen=True)
class LookedUp:
    """Stored columns of the candidates, in their order; `found` is False where the store does not know one."""

    columns: pa.Table
    found: np.ndarray


class Ranker:
    def __init__(self, config: FunnelConfig, *, folder: Path, features: FeatureStore):
        self._config, self._features = config, features
        self._artifact = artifact = load(folder / config.ranker, max_batch=MAX_BATCH)
        if "request" not in artifact.signature:
            raise UserError(f"{artifact.path} has no program for requests; export the ranker with --request")
        if config.score not in artifact.outputs or artifact.outputs[config.score][0]:
            raise UserError(
                f"{artifact.path} gives {', '.join(artifact.outputs)}, and no number {config.score!r} to order by"
            )
        self.version = artifact.version
        self._encoder = RequestEncoder(
            needed(artifact.features, inputs=artifact.inputs), vocabularies=artifact.vocabularies
        )
        self._vocabularies = Vocabularies(artifact.vocabularies)
        self._derived = {e.name: e for e in config.derived}
        raw = [f.name for f in self._encoder.item.all]
        strange = sorted(set(self._derived) - set(raw))
        if strange:
            raise UserError(f"{folder / FUNNEL} derives {strange[0]!r}, which is no item feature of the ranker")
        stored = [name for name in raw if name not in self._derived]
        self._columns = list(dict.fromkeys([*stored, *(e.since for e in config.derived), *config.decide.columns()]))
        lost = [name for name in self._columns if name not in features.schema.names]
        if lost:
            raise UserError(
                f"the feature store {config.features} has no column {lost[0]!r}, which the funnel needs; "
                f"it has {', '.join(features.schema.names)}"
            )
        self.fields = frozenset(f.name for f in self._encoder.user.all) | {e.until for e in config.derived}
        self.calibration: Map | None = None
        if config.calibration is not None:
            if "calibration" in artifact.signature:
                raise UserError(
                    f"{artifact.path} applies a calibration already: a second one would bend its scores again"
                )
            score, self.calibration = read_map(read_json(folder / config.calibration), path=folder / config.calibration)
            if score != config.score:
                raise UserError(f"{config.calibration} calibrates {score!r}, the funnel orders by {config.score!r}")

    def look_up(self, ids: Sequence[Item]) -> LookedUp:
        looked = self._features.get(ids, names=self._columns)
        return LookedUp(looked.columns, looked.found)

    def encode_user(self, user: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One row of the user's and the context's arrays; a faulty field is refused by name."""
        rows, _ = self._encoder.encode_user({f.name: user[f.name] for f in self._encoder.user.all})
        for rule in self._derived.values():
            now = user[rule.until]
            if isinstance(now, bool) or not isinstance(now, int | float | np.number) or not np.isfinite(now):
                raise UserError(
                    f"user.{rule.until} is {now!r}; {rule.name!r} needs the moment of the request, in seconds"
                )
        return rows

    def score(
        self, user: Mapping[str, Any], *, rows: Mapping[str, np.ndarray], looked: LookedUp
    ) -> tuple[np.ndarray, np.ndarray]:
        """A score for each candidate, NaN where there is none, and why there is none; `rows` are the encoded user's."""
        scores, why = np.full(len(looked.found), np.nan), np.full(len(looked.found), "", object)
        why[~looked.found] = "rank: it has no features"
        known = np.flatnonzero(looked.found)
        if not len(known):
            return scores, why
        columns = self._with_derived(looked.columns.take(known), user=user)
        done = encode(columns, features=self._encoder.item, vocabularies=self._vocabularies, file="features")
        for line in done.rejects.lines():
            why[known[line["row"]]] = f"rank: its feature {line['field']!r} is wrong: {line['why']}"
        if len(done.keep):
            found = self._artifact.request({**rows, **done.rows})[self._config.score].astype(np.float64)
            kept = known[np.asarray(done.keep)]
            scores[kept] = found
            why[kept[~np.isfinite(found)]] = "rank: its score is not finite"
        return scores, why

    def warm(self, *, most: int) -> None:
        size = SMALLEST
        while True:
            self._artifact.request(self._zeros(rows=size))
            if size >= bucket(most, largest=MAX_BATCH):
                return
            size *= 2

    def _zeros(self, *, rows: int) -> dict[str, np.ndarray]:
        shared = self._artifact.signature["request"]["shared"]
        inputs = self._artifact.inputs.items()
        return {n: np.zeros((1 if n in shared else rows, *shape), dtype) for n, (shape, dtype) in inputs}

    def _with_derived(self, columns: pa.Table, *, user: Mapping[str, Any]) -> pa.Table:
        for name, rule in self._derived.items():
            since, missing = floats(column(columns, rule.since, file="the feature store"))
            # as a float32, as sources that store ages hold them: the encoding that follows must see the same number
            age = ((float(user[rule.until]) - since) / rule.per).astype(np.float32)
            age = age if rule.most is None else np.minimum(age, np.float32(rule.most))
            columns = columns.append_column(name, pa.array(age, mask=missing))
        return columns
