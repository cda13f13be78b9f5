"""Vocabularies: which values of a categorical column have a row of their own.

Ids follow the hash of the value, so they carry no meaning (not frequency, not time) and equal data give equal files.
They are saved as `<name>.vocab.parquet` with the model.
"""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.cluster import Cluster
from data.columns import empty_is_null, is_bytes, is_text, through_dictionary
from data.errors import UserError
from data.features import FIRST, MISSING, UNKNOWN, Categorical, Features, Sequence
from data.hashing import hash_column

SUFFIX = ".vocab.parquet"


class Vocabulary:
    """Known values in the order of their ids, which start at 2."""

    def __init__(self, values: pa.Array, counts: np.ndarray, *, name: str):
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        hashes = hash_column(values)
        order = np.argsort(hashes, kind="stable")
        self.name = name
        self.hashes = hashes[order]
        self.values = values.take(pa.array(order))
        self.counts = np.asarray(counts, np.int64)[order]
        same = np.flatnonzero(np.diff(self.hashes.view(np.int64)) == 0)
        if len(same):
            raise UserError(f"vocabulary {name!r} holds {self.values[same[0]]} twice or two values of one hash")

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def rows(self) -> int:
        """Rows of an embedding table that holds every id."""
        return len(self) + FIRST

    @property
    def of_text(self) -> bool:
        return is_text(self.values.type) or is_bytes(self.values.type)

    def lookup(self, values: pa.Array) -> np.ndarray:
        """int32 ids; unknown values give 1, nulls and empty strings 0."""
        if not pa.types.is_dictionary(values.type) and len(values) > 4096:
            values = values.dictionary_encode()
        if pa.types.is_dictionary(values.type):
            return through_dictionary(values, self._distinct)
        return self._distinct(values)

    def _distinct(self, values: pa.Array) -> np.ndarray:
        if pa.types.is_null(values.type):
            return np.full(len(values), MISSING, np.int32)
        if (is_text(values.type) or is_bytes(values.type)) != self.of_text:
            raise UserError(f"vocabulary {self.name!r} was built from {self.values.type}, the data has {values.type}")
        return self._search(empty_is_null(values))

    def _search(self, values: pa.Array) -> np.ndarray:
        hashes = hash_column(values)
        buckets, shift = self._buckets
        at = buckets[(hashes >> shift).astype(np.int64)]
        ids = np.full(len(values), UNKNOWN, np.int32)
        for _ in range(self._fullest):
            here = np.minimum(at, len(self) - 1)
            found = self.hashes[here] == hashes
            ids[found] = here[found] + FIRST
            at = at + 1
        if values.null_count:
            ids[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return ids

    @cached_property
    def _buckets(self) -> tuple[np.ndarray, np.uint64]:
        """Hashes are even, so their first bits say almost where they stand."""
        bits = max(1, int(np.ceil(np.log2(len(self) + 1))))
        shift = np.uint64(64 - bits)
        return np.searchsorted(self.hashes >> shift, np.arange(1 << bits, dtype=np.uint64)), shift

    @cached_property
    def _fullest(self) -> int:
        buckets, _ = self._buckets
        return int(np.diff(buckets, append=len(self)).max())

    def value(self, ids: np.ndarray) -> pa.Array:
        """The values of these ids; null for missing and unknown."""
        ids = np.asarray(ids)
        return self.values.take(pa.array(ids - FIRST, mask=ids < FIRST))

    def save(self, folder: str | os.PathLike) -> Path:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (self.name + SUFFIX)
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        pq.write_table(pa.table({"value": self.values, "count": pa.array(self.counts)}), part)
        part.replace(path)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Vocabulary":
        path = Path(path)
        table = pq.read_table(path)
        return cls(table["value"], table["count"].to_numpy(), name=path.name.removesuffix(SUFFIX))


class Vocabularies(Mapping[str, Vocabulary]):
    """The vocabularies of a folder, each read when first asked for."""

    def __init__(self, folder: str | os.PathLike | None = None, known: Mapping[str, Vocabulary] | None = None):
        self.folder = None if folder is None else Path(folder)
        self._known: dict[str, Vocabulary] = dict(known or {})
        self._tokenizers: dict = {}

    def __getitem__(self, name: str) -> Vocabulary:
        if name not in self._known:
            path = None if self.folder is None else self.folder / (name + SUFFIX)
            if path is None or not path.exists():
                raise UserError(
                    f"no vocabulary {name!r} in {self.folder or 'memory'}: build it with data.vocabulary.build, "
                    f"or declare the feature with encode='hash'"
                )
            self._known[name] = Vocabulary.load(path)
        return self._known[name]

    def __iter__(self):
        on_disk = () if self.folder is None else (p.name.removesuffix(SUFFIX) for p in self.folder.glob("*" + SUFFIX))
        return iter(sorted({*self._known, *on_disk}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def tokenizer(self, name: str):
        """The tokenizer file `name` of the folder, or at that path."""
        from data.tokenizer import load  # 30 ms, and only texts need it

        if name not in self._tokenizers:
            paths = self._places(name)
            path = next((p for p in paths if p.is_file()), None)
            if path is None:
                raise UserError(f"no tokenizer file {name!r}; looked at {', '.join(map(str, paths))}")
            self._tokenizers[name] = load(path)
        return self._tokenizers[name]

    def _places(self, name: str) -> list[Path]:
        # a model's folder has it by its last name
        inside = [] if self.folder is None else [self.folder / name, self.folder / Path(name).name]
        return [*inside, Path(name)]

    def read_tokenizers(self, features: Features) -> None:
        """Those of texts that there are, so that `save` writes them also where encoded rows came from a cache."""
        for feature in features.all:
            name = getattr(feature, "tokenizer", None)
            if name is not None and any(place.is_file() for place in self._places(name)):
                self.tokenizer(name)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes every vocabulary and every tokenizer used, for a model to carry."""
        for name in self:
            self[name].save(folder)
        for name, tokenizer in self._tokenizers.items():
            Path(folder).mkdir(parents=True, exist_ok=True)
            tokenizer.save(str(Path(folder) / Path(name).name))

    def __getstate__(self):
        return {"folder": self.folder, "_known": self._known if self.folder is None else {}, "_tokenizers": {}}


def named(features: Features) -> dict[str, list[str]]:
    """Vocabulary name -> the columns that use it."""
    found: dict[str, list[str]] = {}
    for feature in features.all:
        inner = feature.of if isinstance(feature, Sequence) else feature
        if isinstance(inner, Categorical) and inner.encode == "vocabulary":
            found.setdefault(inner.vocabulary or inner.table, []).append(feature.name)
    return found


def build(
    path: str,
    *,
    features: Features,
    folder: str | os.PathLike | None = None,
    floor: int | Mapping[str, int] = 1,
    most: int | Mapping[str, int] | None = None,
    separator: str | None = None,
    memory: str = "1GB",
    threads: int = 2,
    cluster: Cluster | None = None,
) -> Vocabularies:
    """Counts every value of the Parquet files at `path`, reading each column once, and keeps those seen `floor` times.

    `most` keeps the most frequent, ties by value. `floor` and `most` may differ by vocabulary name. Columns that share
    a table (an item and the history of items) share one vocabulary. On a `cluster` its workers count a file each.
    """
    from data.counts import count
    from data.parquet import expand

    wanted = named(features)
    limits = {
        name: (
            floor if isinstance(floor, int) else floor.get(name, 1),
            most.get(name) if isinstance(most, Mapping) else most,
        )
        for name in wanted
    }
    counted = count(
        [str(file) for file in expand(path)],
        named=wanted,
        limits=limits,
        separator=separator,
        memory=memory,
        threads=threads,
        cluster=cluster,
        scratch=None if folder is None else Path(folder) / f".counts{os.getpid()}",
    )
    made = {
        name: Vocabulary(table["value"].combine_chunks(), table["n"].to_numpy(), name=name) for name, table in counted
    }
    vocabularies = Vocabularies(folder, known=made)
    if folder is not None:
        vocabularies.save(folder)
    return vocabularies
