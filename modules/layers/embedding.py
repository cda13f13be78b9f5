"""One fused embedding layer for all fields of a source.

Tables of one width lie stacked in one parameter `table_<width>`, so that a batch costs one gather per width and the
tables shard by row as one array. Features of one `table` share rows. Rows 0 (missing) and 1 (unknown) are learned.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal, TypeVar

import chz
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.base import Batch, Features, FeatureSpec, valid
from modules.layers.content import Content, content_layer, project
from modules.layers.fields import side_by_side, stacked
from modules.layers.multiplex import Multiplex
from modules.layers.rows import take_rows

UNKNOWN, FIRST = 1, 2
ROW_MULTIPLE = 8  # stacked tables hold a multiple of this many rows, so that they shard over a model axis

Option = TypeVar("Option")


@chz.chz
class Embedding:
    """How fields become vectors; the usual width is the model's `dim`."""

    widths: Mapping[str, int] = chz.field(default_factory=dict, doc="width of single features or tables")
    hash_buckets: Mapping[str, int] = chz.field(
        default_factory=dict, doc="features or tables whose ids are hashed into this many rows, rows 0 and 1 included"
    )
    pool: Literal["mean", "sum"] = chz.field(default="mean", doc="how a bag (multi-hot, text) becomes one vector")
    std: float = chz.field(default=1e-2, doc="standard deviation of rows and field vectors at the start")
    multiplex: Multiplex | None = chz.field(
        default=None, doc="one hashed table for all looked-up features; None: own rows"
    )
    content: Mapping[str, Content] = chz.field(
        default_factory=dict, doc="how the vectors of dense features or tables enter; default: adapted"
    )

    @chz.validate
    def _sizes_make_sense(self):
        for name, width in self.widths.items():
            if width < 1:
                raise ValueError(f"widths[{name!r}] is {width}; a width is at least 1")
        for name, buckets in self.hash_buckets.items():
            if buckets <= FIRST:
                raise ValueError(f"hash_buckets[{name!r}] is {buckets}; rows 0 and 1 are reserved, so give at least 3")
        if self.multiplex is not None and self.hash_buckets:
            raise ValueError("embedding.multiplex hashes every feature into one table: leave hash_buckets empty")


@dataclasses.dataclass(frozen=True)
class Field:
    """What the layer needs to know of one feature."""

    name: str
    kind: str
    form: str  # lookup | numeric | dense
    table: str
    width: int
    masked: bool  # has positions beyond a length
    size: int = 0  # ids below this are known
    rows: int = 0  # rows in the stacked parameter; of a dense feature, the size of its vectors
    salts: tuple[int, ...] = ()  # of the hash into those rows, one for each row read; none: not hashed
    index: int = 0  # first row of the table in its stacked parameter, or row of a numeric's field vector

    @property
    def row_width(self) -> int:
        """Width of the rows of which the vector is made."""
        return self.width // max(len(self.salts), 1)


class FeatureEmbedding(nnx.Module):
    """`embed(batch)` gives each feature's vectors by name; `fields` and `flat` give one vector per feature."""

    def __init__(self, features: Features, *, dim: int, options: Embedding = Embedding(), rngs: nnx.Rngs):
        inputs = list(features)
        if not inputs:
            raise ValueError("no features to embed: the source declares no inputs of the kinds asked for")
        widths = _by_table(options.widths, features=inputs)
        buckets = _by_table(options.hash_buckets, features=inputs)
        content = _by_table(options.content, features=inputs)
        self.pool = options.pool
        self.slots, rows, numerics, dense = _layout(
            inputs, dim=dim, widths=widths, buckets=buckets, content=content, multiplex=options.multiplex
        )
        normal = nnx.initializers.normal(options.std)
        for width, count in rows.items():
            setattr(self, f"table_{width}", nnx.Param(normal(rngs.params(), (count, width))))
        for width, count in numerics.items():
            setattr(self, f"numeric_{width}", nnx.Param(normal(rngs.params(), (count, width))))
        if dense:
            self.dense = nnx.Dict(
                {
                    t: content_layer(content.get(t, Content()), table=t, features=inputs, width=width, rngs=rngs)
                    for t, width in dense.items()
                }
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.slots)

    def slot(self, name: str) -> Field:
        for s in self.slots:
            if s.name == name:
                return s
        raise KeyError(f"no embedded feature {name!r}" + _nearest(name, self.names))

    def width(self, *names: str) -> int:
        """Summed width of these features, of all if none is named."""
        return sum(self.slot(n).width for n in names or self.names)

    def __call__(self, batch: Batch, *, names: tuple[str, ...] | None = None) -> dict[str, jax.Array]:
        """Name to [b, d], or [b, t, d] for sequences, of these features (all if None). Padding is zero."""
        slots = self.slots if names is None else tuple(self.slot(n) for n in names)
        out = self._look_up(batch, slots=[s for s in slots if s.form == "lookup"])
        for s in slots:
            if s.form == "numeric":
                x = batch[s.name][..., None]
                vector = getattr(self, f"numeric_{s.width}")[s.index]
                out[s.name] = x.astype(vector.dtype) * jnp.expand_dims(vector, tuple(range(x.ndim - 1)))
            elif s.form == "dense":
                out[s.name] = project(self.dense[s.table], batch=batch, name=s.name, size=s.rows)
        for s in slots:
            if s.masked:
                out[s.name] = out[s.name] * valid(batch, s.name)[..., None].astype(out[s.name].dtype)
            if s.masked and s.kind != "sequence":
                out[s.name] = _pool(out[s.name], batch=batch, name=s.name, how=self.pool)
        return {s.name: out[s.name] for s in slots}

    def pooled(self, batch: Batch, *, names: tuple[str, ...] | None = None) -> dict[str, Float[Array, "b d"]]:
        """One vector per feature: as `__call__`, with sequences averaged over their valid positions."""
        return self.pool_sequences(self(batch, names=names), batch=batch)

    def pool_sequences(self, vectors: dict[str, jax.Array], *, batch: Batch) -> dict[str, Float[Array, "b d"]]:
        """What `__call__` returned, with sequences averaged over their valid positions."""
        return {
            name: _pool(v, batch=batch, name=name, how="mean") if self.slot(name).kind == "sequence" else v
            for name, v in vectors.items()
        }

    def fields(self, batch: Batch, *, names: tuple[str, ...] | None = None) -> Float[Array, "b f d"]:
        """One vector per feature, stacked; all must be of one width."""
        vectors = self.pooled(batch, names=names)
        widths = {n: self.slot(n).width for n in vectors}
        if len(set(widths.values())) > 1:
            raise ValueError(f"fields of different widths do not stack: {widths}; give all one width, or use `flat`")
        return stacked(list(vectors.values()))

    def flat(self, batch: Batch, *, names: tuple[str, ...] | None = None) -> Float[Array, "b d"]:
        """One vector per feature, side by side."""
        return side_by_side(list(self.pooled(batch, names=names).values()))

    def look_up(self, ids: Int[Array, "*b"], *, name: str) -> Float[Array, "*b d"]:
        """Rows of the table of feature `name` for given ids (say candidates that no feature of the batch holds)."""
        s = self.slot(name)
        vectors = take_rows(getattr(self, f"table_{s.row_width}"), _rows_of(ids, s))
        return vectors.reshape(*ids.shape, s.width)

    def _look_up(self, batch: Batch, *, slots: list[Field]) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        # In a request the user's features have one row and the candidate's many: a gather for each.
        shapes = [(s.row_width, batch[s.name].shape[0]) for s in slots]
        for width, rows_here in dict.fromkeys(shapes):
            same = [s for s, shape in zip(slots, shapes, strict=True) if shape == (width, rows_here)]
            columns = [_rows_of(batch[s.name], s).reshape(rows_here, -1) for s in same]
            rows = take_rows(getattr(self, f"table_{width}"), jnp.concatenate(columns, axis=1))
            ends = np.cumsum([c.shape[1] for c in columns])[:-1]
            for s, part in zip(same, jnp.split(rows, ends, axis=1), strict=True):
                out[s.name] = part.reshape(*batch[s.name].shape, s.width)
        return out


def hash_ids(ids: Int[Array, "*b"], *, salt: int, buckets: int) -> Int[Array, "*b"]:
    """Ids from 2 on, spread over rows 2..buckets-1 by multiply-shift mixing; 0 and 1 stay what they mean."""
    x = ids.astype(jnp.uint32) ^ jnp.uint32(salt)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    x = x ^ (x >> 16)
    return jnp.where(ids < FIRST, ids, FIRST + (x % jnp.uint32(buckets - FIRST)).astype(ids.dtype))


def _rows_of(ids: Int[Array, "*b"], slot: Field) -> Int[Array, "*b n"]:
    """Rows of the stacked parameter that make up the vector of each id."""
    # Tables are stacked, so an id out of range would read a row of another table: it is unknown instead.
    ids = jnp.where((ids >= 0) & (ids < slot.size), ids, UNKNOWN)
    if not slot.salts:
        return ids[..., None] + slot.index
    return jnp.stack([hash_ids(ids, salt=salt, buckets=slot.rows) for salt in slot.salts], axis=-1) + slot.index


def _pool(x: Float[Array, "b t d"], *, batch: Batch, name: str, how: str) -> Float[Array, "b d"]:
    total = x.sum(axis=1)
    if how == "sum":
        return total
    return total / jnp.maximum(batch[f"{name}/length"], 1)[:, None].astype(x.dtype)


def _layout(
    inputs: list[FeatureSpec],
    *,
    dim: int,
    widths: Mapping[str, int],
    buckets: Mapping[str, int],
    content: Mapping[str, Content],
    multiplex: Multiplex | None,
) -> tuple[tuple[Field, ...], dict[int, int], dict[int, int], dict[str, int]]:
    """Slots, rows by width, numeric vectors by width, and width by dense table."""
    slots: list[Field] = []
    first: dict[str, int] = {}  # by table
    rows: dict[int, int] = {}
    numerics: dict[int, int] = {}
    dense: dict[str, int] = {}
    for f in inputs:
        form, width = _form(f), widths.get(f.table, dim)
        if form != "dense" and f.table in content:
            raise ValueError(f"content[{f.name!r}]: {f.name!r} is {f.kind}, not a vector")
        count = buckets.get(f.table, 0) or f.size
        salts: tuple[int, ...] = (zlib.crc32(f.table.encode()),) if f.table in buckets else ()
        if form == "dense":
            width = content[f.table].width(f, asked=widths.get(f.table), dim=dim) if f.table in content else width
            dense[f.table], count = width, f.shape[-1]
        elif form == "lookup" and multiplex is not None:
            salts, count = multiplex.salts(f.table, width=width), multiplex.rows
            rows[width // len(salts)] = count
        elif f.table not in first:
            stack, step = (rows, count) if form == "lookup" else (numerics, 1)
            first[f.table] = stack.get(width, 0)
            stack[width] = first[f.table] + step
        slots.append(
            Field(
                name=f.name, kind=f.kind, form=form, table=f.table, width=width, masked=bool(f.max_len), size=f.size,
                rows=count, salts=salts, index=first.get(f.table, 0),
            )
        )  # fmt: skip
    rows = {w: math.ceil(n / ROW_MULTIPLE) * ROW_MULTIPLE for w, n in rows.items()}
    for width, count in rows.items():
        if count > np.iinfo(np.int32).max:
            raise ValueError(f"tables of width {width} hold {count} rows, more than int32 ids reach; hash some of them")
    return tuple(slots), rows, numerics, dense


def _form(f: FeatureSpec) -> str:
    if f.kind == "image":
        raise ValueError(f"feature {f.name!r} is an image: encode it first, or leave it out with features.without()")
    rank = len(f.shape) - bool(f.max_len)
    if f.size and rank == 0:
        return "lookup"
    if not f.size and rank == 0:
        return "numeric"
    if not f.size and rank == 1:
        return "dense"
    raise ValueError(f"feature {f.name!r} ({f.kind} of shape {f.shape}) has no embedding; flatten it in a transform")


def _by_table(options: Mapping[str, Option], *, features: list[FeatureSpec]) -> dict[str, Option]:
    tables = {f.table: f.table for f in features} | {f.name: f.table for f in features}
    out: dict[str, Option] = {}
    for name, value in options.items():
        if name not in tables:
            raise KeyError(f"no feature or table {name!r}" + _nearest(name, tuple(tables)))
        if out.setdefault(tables[name], value) != value:
            raise ValueError(f"table {tables[name]!r} is given both {out[tables[name]]} and {value} by its features")
    return out


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
