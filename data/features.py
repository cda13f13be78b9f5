"""Feature kinds: what a source declares, what a model receives, how a raw value becomes an array.

Id 0 means missing and id 1 out of vocabulary in every categorical table; known values start at 2. A sequence,
multi-hot or text `x` arrives as `x` (padded at the end, oldest first) and `x/length`.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Literal

import chz
import numpy as np

MISSING, UNKNOWN, FIRST = 0, 1, 2

Role = Literal["user", "item", "context"]
Encode = Literal["id", "vocabulary", "hash"]
Shape = tuple[int, ...]


@chz.chz
class Feature:
    """One named column of a source."""

    name: str = chz.field(doc="column in the source and key in the batch")
    role: Role = chz.field(default="context", doc="whose property it is")

    kind = "feature"
    is_input = True

    @property
    def table(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        return 0

    @property
    def max_len(self) -> int:
        return 0

    @property
    def shape(self) -> Shape:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def arrays(self) -> dict[str, tuple[Shape, np.dtype]]:
        """Name, shape and dtype of each array that one example of this feature adds to the batch."""
        return {self.name: (self.shape, self.dtype)}


@chz.chz
class Categorical(Feature):
    rows: int = chz.field(doc="rows of the embedding table, ids 0 (missing) and 1 (unknown) included")
    encode: Encode = chz.field(default="id", doc="id: already 0..rows-1; vocabulary: looked up; hash: hashed")
    vocabulary: str | None = chz.field(default=None, doc="name of the vocabulary file, for encode=vocabulary")
    share: str | None = chz.field(default=None, doc="table shared with other features; default: the own name")

    kind = "categorical"

    @property
    def table(self) -> str:
        return self.share or self.name

    @property
    def size(self) -> int:
        return self.rows

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@chz.chz
class Numeric(Feature):
    transform: Literal["none", "log1p", "standard"] = "none"
    mean: float = chz.field(default=0.0, doc="subtracted by transform=standard")
    scale: float = chz.field(default=1.0, doc="divided by, transform=standard")
    default: float | None = chz.field(default=None, doc="stands for null and NaN; None: such a row is rejected")

    kind = "numeric"


@chz.chz
class Sequence(Feature):
    """Ordered values of one inner feature; its own history, oldest first."""

    of: Feature = chz.field(doc="feature of one position; a Categorical inside shares its table")
    length: int = chz.field(doc="positions kept, the newest")

    kind = "sequence"

    @property
    def table(self) -> str:
        return self.of.table

    @property
    def size(self) -> int:
        return self.of.size

    @property
    def max_len(self) -> int:
        return self.length

    @property
    def shape(self) -> Shape:
        return (self.length, *self.of.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.of.dtype

    def arrays(self) -> dict[str, tuple[Shape, np.dtype]]:
        return {self.name: (self.shape, self.dtype), f"{self.name}/length": ((), np.dtype(np.int32))}


@chz.chz
class MultiHot(Sequence):
    """An unordered set of categorical values."""

    kind = "multihot"


@chz.chz
class Dense(Feature):
    dim: int

    kind = "dense"

    @property
    def shape(self) -> Shape:
        return (self.dim,)


@chz.chz
class Image(Feature):
    height: int
    width: int
    channels: int = 3
    absent: Literal["reject", "black"] = chz.field(default="reject", doc="what becomes of a row without a picture")

    kind = "image"

    @property
    def shape(self) -> Shape:
        return (self.height, self.width, self.channels)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)


@chz.chz
class Text(Feature):
    tokens: int = chz.field(doc="size of the tokenizer's vocabulary; token 0 is padding")
    length: int = chz.field(doc="tokens kept, the first")
    tokenizer: str | None = chz.field(default=None, doc="tokenizer file; None: the column holds token ids")

    kind = "text"

    @property
    def size(self) -> int:
        return self.tokens

    @property
    def max_len(self) -> int:
        return self.length

    @property
    def shape(self) -> Shape:
        return (self.length,)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def arrays(self) -> dict[str, tuple[Shape, np.dtype]]:
        return {self.name: (self.shape, self.dtype), f"{self.name}/length": ((), np.dtype(np.int32))}


@chz.chz
class Label(Feature):
    """A target. Tasks and metrics see it, models never."""

    type: Literal["binary", "real", "class"] = "binary"

    kind = "label"
    is_input = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32 if self.type == "class" else np.float32)


@chz.chz
class Truth(Label):
    """A known truth of a simulation (true click probability): for evaluators alone."""

    type: Literal["binary", "real", "class"] = "real"

    kind = "truth"


@chz.chz
class Weight(Feature):
    kind = "weight"
    is_input = False


@chz.chz
class Group(Feature):
    """Key by which metrics group rows (user, request)."""

    encode: Encode = "id"

    kind = "group"
    is_input = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@chz.chz
class Time(Feature):
    """Seconds since `origin`; for splits and evaluators, an input only where a model asks for it by name."""

    origin: int = 0

    kind = "time"
    is_input = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@chz.chz
class Features:
    """All features of a source, in order. Iterating yields the inputs alone."""

    all: tuple[Feature, ...]

    @chz.validate
    def _names_are_unique(self):
        names = [f.name for f in self.all]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"features declared twice: {', '.join(twice)}")

    @chz.validate
    def _tables_agree(self):
        rows: dict[str, int] = {}
        for f in self.all:
            if f.size and rows.setdefault(f.table, f.size) != f.size:
                raise ValueError(f"table {f.table!r} has {rows[f.table]} rows, but {f.name!r} declares {f.size}")

    def __iter__(self) -> Iterator[Feature]:
        return (f for f in self.all if f.is_input)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.all)

    def __getitem__(self, name: str) -> Feature:
        for f in self.all:
            if f.name == name:
                return f
        near = get_close_matches(name, [f.name for f in self.all], n=1)
        raise KeyError(f"no feature {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    def select(
        self, *, kinds: tuple[str, ...] = (), roles: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> "Features":
        """The features of these kinds and these roles and these names; an empty tuple selects all."""
        chosen = [
            f
            for f in self.all
            if (not kinds or f.kind in kinds) and (not roles or f.role in roles) and (not names or f.name in names)
        ]
        return Features(all=tuple(chosen))

    def without(self, *names: str) -> "Features":
        return Features(all=tuple(f for f in self.all if f.name not in names))

    def plus(self, *features: Feature) -> "Features":
        return Features(all=(*self.all, *features))

    def arrays(self, *, inputs_only: bool = False) -> dict[str, tuple[Shape, np.dtype]]:
        """Name to (shape of one example, dtype) of every array in a batch; or of what a model may be given: inputs,
        and times, for those that ask for one by name."""
        out: dict[str, tuple[Shape, np.dtype]] = {}
        for f in self.all:
            if f.is_input or isinstance(f, Time) or not inputs_only:
                out.update(f.arrays())
        return out

    def one(self, kind: str) -> Feature:
        """The only feature of `kind`."""
        found = [f for f in self.all if f.kind == kind]
        if len(found) != 1:
            raise KeyError(f"expected one feature of kind {kind!r}, found {[f.name for f in found]}")
        return found[0]
