"""An input of which only the new and changed rows reach the model, gathered into full batches."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from data.features import Features
from data.vector_shards import FINGERPRINT_BYTES
from serve.forward import Inputs
from serve.inputs import Chunk, Input
from serve.known import Known, fingerprints, id_keys, packed, plain_ids

Missing = Literal["reject", "keep"]
"""What becomes of a row without a picture, or without words, that the model reads."""


class Changed:
    """Carries id, row and fingerprint of every row; the fingerprint is null where the row is rejected."""

    def __init__(
        self, rows: Input, *, id: str, features: Features, inputs: Inputs, known: Known, missing: Missing = "reject"
    ):
        self._rows, self._id, self._inputs, self._known, self._missing = rows, id, inputs, known, missing
        self.id_type = plain_ids(pa.nulls(0, rows.carried.field(id).type), name=id).type
        self.carried = pa.schema(
            [("id", self.id_type), ("row", pa.int64()), ("fingerprint", pa.binary(FINGERPRINT_BYTES))]
        )
        self._parts = [f for f in features if f.name in inputs and _what(f) is not None]

    def spans(self, *, rows: int) -> Sequence[Any]:
        return self._rows.spans(rows=rows)

    def made_from(self) -> Mapping[str, Any]:
        return {**self._rows.made_from(), "missing": self._missing}

    def read(self, span: Any, *, rows: int) -> Iterator[Chunk]:
        held: list[Chunk] = []
        for chunk in self._rows.read(span, rows=rows):
            fresh = self._fresh(chunk)
            if sum(len(c.keep) for c in held) + len(fresh.keep) > rows:
                yield _joined(held)
                held = []
            held.append(fresh)
        if held:
            yield _joined(held)

    def _fresh(self, chunk: Chunk) -> Chunk:
        """The chunk with those rows alone whose vector is not known."""
        ids = plain_ids(chunk.carried[self._id], name=self._id)
        nameless = ids.is_null().to_numpy(zero_copy_only=False)[chunk.keep]
        faults, lacking = self._lacking(chunk.rows)
        reasons = [*faults, *([(self._id, "no id", nameless)] if nameless.any() else [])]
        good = ~(nameless | lacking)
        kept = chunk.keep[good]
        wanted = {name: chunk.rows[name][good] for name in self._inputs}
        prints = np.zeros((chunk.count, 2), np.uint64)
        prints[kept] = fingerprints(wanted, count=len(kept))
        at, _ = self._known.find(id_keys(ids)[kept], prints[kept])
        new = at < 0
        there = np.zeros(chunk.count, bool)
        there[kept] = True
        carried = {
            "id": ids,
            "row": pa.array(np.arange(chunk.first, chunk.first + chunk.count)),
            "fingerprint": packed(prints, where=there),
        }
        rejects = list(chunk.rejects)
        for name, why, faulty in reasons:
            places = chunk.first + chunk.keep[faulty]
            rejects += [{"file": chunk.file, "row": int(row), "field": name, "why": why} for row in places]
        return Chunk(chunk.count, kept[new], {n: a[new] for n, a in wanted.items()}, carried, rejects)

    def _lacking(self, rows: Mapping[str, np.ndarray]) -> tuple[list[tuple[str, str, np.ndarray]], np.ndarray]:
        """Faults by name, and all rows with one: a part that is missing, or where those are kept, all of them."""
        count = len(next(iter(rows.values())))
        absent = {f.name: _absent(rows, f) for f in self._parts}
        if self._missing == "reject":
            faults = [(f.name, f"no {_what(f)}", absent[f.name]) for f in self._parts if absent[f.name].any()]
        else:
            nothing = np.logical_and.reduce(list(absent.values())) if absent else np.zeros(count, bool)
            why = ", ".join(f"no {_what(f)}" for f in self._parts)
            faults = [(self._parts[0].name, why, nothing)] if nothing.any() else []
        lacking = np.zeros(count, bool)
        for *_, mask in faults:
            lacking |= mask
        return faults, lacking


def _what(feature: Any) -> str | None:
    if feature.kind == "sequence":
        return "frames" if feature.of.kind == "image" else None
    return {"image": "picture", "text": "words"}.get(feature.kind)


def _absent(rows: Mapping[str, np.ndarray], feature: Any) -> np.ndarray:
    if feature.kind == "image":
        return np.asarray(~rows[feature.name].any(axis=(1, 2, 3)))
    return np.asarray(rows[f"{feature.name}/length"] == 0)


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    starts = np.cumsum([0, *(c.count for c in chunks)])
    return Chunk(
        count=int(starts[-1]),
        keep=np.concatenate([c.keep + start for c, start in zip(chunks, starts[:-1], strict=True)]),
        rows={name: np.concatenate([c.rows[name] for c in chunks]) for name in chunks[0].rows},
        carried={name: pa.concat_arrays([c.carried[name] for c in chunks]) for name in chunks[0].carried},
        rejects=[line for c in chunks for line in c.rejects],
    )
