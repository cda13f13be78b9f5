"""Products (SPUs) out of listings: which listings offer the same thing, by ids that stay from day to day.

Listings are compared within a block of one category and brand. In order, a listing joins the most alike product of its
block if it is alike enough to the product's first listing and no attribute that both state differs; else it founds a
product. Comparing with founders alone keeps chains of small differences from joining what is not alike, and 50,000
listings of one product take one founder. Listings of equal content are one before that, wherever they stand in the
block; with the brand left out by one of them, also across blocks of their category (by union-find).

Memory: some 60 bytes a listing, and the vectors of one block; those of the others lie in a scratch file.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.arrow_file import SUFFIXES, ArrowFile, batches
from data.errors import UserError
from data.hashing import hash_column, mix

TILE = 1024  # listings compared at once
FOUNDERS = 8192  # with so many founders at once
WORDS = 256  # numbers that the words of a title are hashed into
NEXT = b"adloom.next_spu"


@dataclasses.dataclass(frozen=True)
class Columns:
    id: str = "id"
    category: str = "category"
    brand: str = "brand"
    title: str = "title"
    vector: str | None = None
    attributes: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        optional = [] if self.vector is None else [self.vector]
        return [self.id, self.category, self.brand, self.title, *optional, *self.attributes]


class Unions:
    """Union-find with path halving; the smaller number stays the root."""

    def __init__(self, count: int):
        self.parent = np.arange(count)

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        self.parent[max(a, b)] = min(a, b)

    def roots(self) -> np.ndarray:
        parent = self.parent
        while True:
            above = parent[parent]
            if (above == parent).all():
                return parent
            parent = above


def build(path: Path, *, columns: Columns, output: Path, previous: Path | None, threshold: float) -> dict[str, int]:
    """Writes id and spu of each listing; returns what was counted."""
    if not 0 < threshold <= 1:
        raise UserError(f"--threshold is {threshold}; give a cosine above 0, at most 1")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        listings = Listings(path, columns=columns, scratch=Path(folder) / "vectors")
        cluster = clusters(listings, threshold=threshold)
    old, first_free = _previous(previous, ids=listings.ids)
    spu, first_free = stable(cluster, old=old, first_free=first_free)
    table = pa.table({"id": listings.ids, "spu": pa.array(spu, pa.int64())})
    part = output.with_name(f".{output.name}.part")
    pq.write_table(table.replace_schema_metadata({NEXT: str(first_free).encode()}), part)
    part.replace(output)
    sizes = np.unique(spu, return_counts=True)[1]
    return {
        "listings": len(spu),
        "repeated_ids": listings.repeated,
        "products": len(sizes),
        "largest": int(sizes.max()),
        "known_before": int((old >= 0).sum()),
        "kept": int((old == spu).sum()),
    }


class Listings:
    """Ids, blocks and attributes in memory, vectors in a scratch file. An id given twice counts as first given."""

    def __init__(self, path: Path, *, columns: Columns, scratch: Path):
        ids: list[pa.Array] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ("category", "brand", "content", "attributes")}
        dim = 0
        with scratch.open("wb") as file:
            for batch in _read(path, columns):
                vectors = _vectors(batch, columns, dim=dim)
                dim = vectors.shape[1]
                file.write(vectors.tobytes())
                ids.append(batch[columns.id])
                parts["category"].append(_codes(batch[columns.category]))
                parts["brand"].append(_codes(batch[columns.brand]))
                # What says nothing is equal to nothing else.
                content = _codes(batch[columns.title]) ^ _bytes_codes(vectors)
                parts["content"].append(np.where(vectors.any(axis=1), content, _codes(batch[columns.id])))
                stated = [_codes(batch[name]) for name in columns.attributes]
                parts["attributes"].append(np.stack(stated, 1) if stated else np.zeros((len(vectors), 0), np.uint64))
        if not ids:
            raise UserError(f"{path} holds no listings")
        every = pa.concat_arrays(ids)
        _, first = np.unique(_codes(every), return_index=True)
        keep = np.sort(first)
        self.repeated = len(every) - len(keep)
        self.ids = every.take(pa.array(keep))
        self.rows = keep
        whole = {name: np.concatenate(part)[keep] for name, part in parts.items()}
        self.category, self.brand, self.content, self.attributes = whole.values()
        self.vectors = np.memmap(scratch, np.float32, mode="r").reshape(-1, dim)

    def __len__(self) -> int:
        return len(self.rows)


def clusters(listings: Listings, *, threshold: float) -> np.ndarray:
    """Of each listing, the number of the first one of its product."""
    unions = Unions(len(listings))
    key = np.stack([listings.category, listings.brand], axis=1)
    _, block = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(block.reshape(-1), kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(block.reshape(-1)[order])) + 1):
        distinct, founder = _distinct(listings, members)
        for one, other in zip(members, founder, strict=True):
            unions.join(int(one), int(other))
        found = _founded(listings.vectors[listings.rows[distinct]], listings.attributes[distinct], threshold=threshold)
        for one, other in zip(distinct, distinct[found], strict=True):
            unions.join(int(one), int(other))
    _join_unbranded(listings, unions)
    return unions.roots()


def _distinct(listings: Listings, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members of distinct content and attributes, and of each member the one that stands for it."""
    key = np.concatenate([listings.content[members][:, None], listings.attributes[members]], axis=1)
    _, first, which = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return members[np.sort(first)], members[first[which.reshape(-1)]]


def _founded(vectors: np.ndarray, attributes: np.ndarray, *, threshold: float) -> np.ndarray:
    """Of each row the row that founded its product."""
    out, founders = np.arange(len(vectors)), np.zeros(0, np.int64)
    for start in range(0, len(vectors), TILE):
        rows = np.arange(start, min(start + TILE, len(vectors)))
        best, at = np.full(len(rows), -1.0), np.full(len(rows), -1)
        for low in range(0, len(founders), FOUNDERS):
            some = founders[low : low + FOUNDERS]
            alike = _alike(vectors, attributes, rows, some)
            here = alike.argmax(axis=1)
            better = alike[np.arange(len(rows)), here] > best
            best[better], at[better] = alike.max(axis=1)[better], some[here][better]
        out[rows] = np.where(best >= threshold, at, rows)
        new = rows[best < threshold]
        if len(new) > 1:
            out[new] = _in_turn(_alike(vectors, attributes, new, new), threshold=threshold, rows=new)
        founders = np.concatenate([founders, new[out[new] == new]])
    return out


def _in_turn(alike: np.ndarray, *, threshold: float, rows: np.ndarray) -> np.ndarray:
    """Of each row the one before it, if any, that it is most alike to among those that founded a product."""
    out, founded = rows.copy(), np.zeros(len(rows), bool)
    for i in range(len(rows)):
        before = np.where(founded[:i], alike[i, :i], -1.0)
        if i and before.max() >= threshold:
            out[i] = rows[before.argmax()]
        else:
            founded[i] = True
    return out


def _alike(vectors: np.ndarray, attributes: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Cosines, and -1 where both state an attribute and it differs."""
    alike = vectors[rows] @ vectors[others].T
    for a, b in zip(attributes[rows].T, attributes[others].T, strict=True):
        alike[(a[:, None] != b[None]) & (a[:, None] != 0) & (b[None] != 0)] = -1.0
    return alike


def _join_unbranded(listings: Listings, unions: Unions) -> None:
    """Equal listings of a category, of which one names no brand and the others agree on theirs, are one product."""
    key = np.concatenate([listings.category[:, None], listings.content[:, None], listings.attributes], axis=1)
    _, same = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(same.reshape(-1), kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(same.reshape(-1)[order])) + 1):
        brands = np.unique(listings.brand[members])
        if len(brands) == 2 and brands[0] == 0:
            for other in members[1:]:
                unions.join(int(members[0]), int(other))


def stable(cluster: np.ndarray, *, old: np.ndarray, first_free: int) -> tuple[np.ndarray, int]:
    """Ids of clusters: that of the old product of which they hold most listings, each id once; else a new one.

    `old` is each listing's product of the day before, -1 where it is new. Returns the ids and the next free number.
    """
    _, number = np.unique(cluster, return_inverse=True)
    number = number.reshape(-1)
    count = int(number.max()) + 1 if len(number) else 0
    was = old >= 0
    pairs, shared = np.unique(np.stack([old[was], number[was]], axis=1), axis=0, return_counts=True)
    left = dict(zip(*np.unique(old[was], return_counts=True), strict=True))
    given = np.full(count, -1, np.int64)
    for at in np.lexsort((pairs[:, 0], -shared)):
        product, where = pairs[at]
        # Most of a product's listings lie in one cluster at most, so that no id is given twice.
        if given[where] < 0 and 2 * shared[at] > left[product]:
            given[where] = product
    new = given < 0
    first = np.full(count, len(cluster))
    np.minimum.at(first, number, np.arange(len(cluster)))
    given[np.flatnonzero(new)[np.argsort(first[new])]] = first_free + np.arange(int(new.sum()))
    return given[number], first_free + int(new.sum())


# -- reading -----------------------------------------------------------------------------------------------


def _read(path: Path, columns: Columns) -> Iterator[dict[str, pa.Array]]:
    with ArrowFile(path) if path.suffix in SUFFIXES else pq.ParquetFile(path) as file:
        missing = [name for name in columns.read if name not in file.schema_arrow.names]
        if missing:
            raise UserError(f"{path} has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
        for batch in batches(file, columns=columns.read, size=1 << 13):
            yield {name: batch[name] for name in columns.read}


def _vectors(batch: dict[str, pa.Array], columns: Columns, *, dim: int) -> np.ndarray:
    """Unit vectors: words of the title, and the content vector, each of length one half."""
    words = _word_vectors(batch[columns.title])
    if columns.vector is None:
        return words
    column = batch[columns.vector]
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if column.null_count or len(flat) % max(len(column), 1):
        raise UserError(f"{columns.vector!r} holds vectors that are missing or of several lengths")
    content = flat.reshape(len(column), -1)
    content /= np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-12)
    out = np.concatenate([words, content], axis=1) * np.float32(0.5**0.5)
    if dim and out.shape[1] != dim:
        raise UserError(f"{columns.vector!r} holds vectors of several lengths")
    return out


def _word_vectors(titles: pa.Array) -> np.ndarray:
    """Each word adds 1 or -1 at a place of its own digest."""
    texts = pc.split_pattern(pc.utf8_lower(pc.fill_null(titles.cast(pa.string()), "")), " ")
    words = texts.flatten()
    row = np.repeat(np.arange(len(texts)), np.diff(texts.offsets.to_numpy()))
    code = _codes(words)
    keep = code != 0
    out = np.zeros((len(texts), WORDS), np.float32)
    sign = np.where(code[keep] >> np.uint64(40) & np.uint64(1), 1.0, -1.0)
    np.add.at(out, (row[keep], (code[keep] % np.uint64(WORDS)).astype(np.int64)), sign)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _codes(values: pa.Array) -> np.ndarray:
    """A number per value; 0 where it is null or empty."""
    if not (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        values = values.cast(pa.string())
        absent = pc.or_kleene(pc.is_null(values), pc.equal(values, ""))
    else:
        absent = pc.is_null(values)
    return np.where(pc.fill_null(absent, True).to_numpy(zero_copy_only=False), 0, hash_column(values) | np.uint64(1))


def _bytes_codes(vectors: np.ndarray) -> np.ndarray:
    factors = mix(np.arange(vectors.shape[1])) | np.uint64(1)
    return mix((vectors.view(np.uint32).astype(np.uint64) * factors[None]).sum(axis=1))


def _previous(path: Path | None, *, ids: pa.Array) -> tuple[np.ndarray, int]:
    """Each listing's product of the day before, -1 where there was none, and the first free number."""
    if path is None:
        return np.full(len(ids), -1, np.int64), 0
    table = pq.read_table(path)
    stored = (table.schema.metadata or {}).get(NEXT)
    if stored is None or {"id", "spu"} - set(table.column_names):
        raise UserError(f"{path} was not written by this command")
    if table.schema.field("id").type != ids.type:
        raise UserError(f"{path} has ids of type {table.schema.field('id').type}, the listings {ids.type}")
    at = pc.index_in(ids, value_set=table["id"].combine_chunks())
    found = table["spu"].take(pc.fill_null(at, 0)).to_numpy() if len(table) else np.zeros(len(ids), np.int64)
    return np.where(pc.is_null(at).to_numpy(zero_copy_only=False), -1, found).astype(np.int64), int(stored)
