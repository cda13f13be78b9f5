"""Pictures packed end to end in one file, with titles and attributes beside it.

images.bin, images.idx.tsv (id, offset, length), items.tsv (id, title, attributes), split.tsv (id, train or val).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import chz
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.building.interactions import look_up, whole
from data.building.read import Manual
from data.building.texts import Texts
from data.encode import encode
from data.errors import UserError
from data.features import Dense, Feature, Features, Image, Label, Text
from data.hashing import hash_column
from data.images import decode
from data.mapped import default_cache
from data.paths import expand
from data.rejects import report
from data.sources import Rows, Source, SourceConfig
from data.tokenizer import load, save
from data.vectors import read
from data.vocabulary import Vocabularies

HOME = "https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small, packed by your own script"
ATTRIBUTES = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")
BYTES = "images.bin"
Split = Literal["train", "val", "all"]
TITLE = "title.json"
VECTOR = "title_vector"
PICTURE_VECTOR = "image_vector"


def listings(manual: Manual) -> pa.Table:
    """id, title, attributes, part, offset and length of every item whose picture lies within the file."""
    text = pa.string()
    schema = pa.schema([("id", pa.int64()), ("title", text), *((name, text) for name in ATTRIBUTES)])
    places = pa.schema([("id", pa.int64()), ("offset", pa.int64()), ("length", pa.int64())])
    parts = pa.schema([("id", pa.int64()), ("split", text)])
    items = whole(manual.csv("items.tsv", schema=schema, delimiter="\t", quote=False, key="id"))
    index = whole(manual.csv("images.idx.tsv", schema=places, delimiter="\t", key="id"))
    split = whole(manual.csv("split.tsv", schema=parts, delimiter="\t", key="id"))
    end = pc.add(index["offset"], index["length"])
    inside = pc.and_(pc.less_equal(end, manual.find(BYTES).stat().st_size), pc.greater_equal(index["offset"], 0))
    index = manual.keep(index, inside, field="offset", why=f"outside {BYTES}")
    items = manual.keep(items, pc.is_in(items["id"], index["id"].combine_chunks()), field="id", why="no picture")
    items = manual.keep(items, pc.is_in(items["id"], split["id"].combine_chunks()), field="id", why="no split")
    return numbered(look_up(look_up(items, on="id", other=index), on="id", other=split))


def numbered(items: pa.Table) -> pa.Table:
    """Adds `product`: one number per distinct title, since equal titles cannot be told apart by a text."""
    _, product = np.unique(hash_column(items["title"].combine_chunks()), return_inverse=True)
    return items.append_column("product", pa.array(product.astype(np.int64)))


def pictures(path: Path, items: pa.Table) -> pa.Array:
    """The encoded pictures of `items`, without reading the others."""
    data = np.memmap(path, np.uint8, "r")
    spans = zip(items["offset"].to_pylist(), items["length"].to_pylist(), strict=True)
    return pa.array([data[at : at + length].tobytes() for at, length in spans], pa.large_binary())


@chz.chz
class PackedImages(SourceConfig):
    """Picture and title of each listing.

    The tokenizer is learnt from the training titles, once, into the cache, or is the one that came with weights. With
    `vectors`, which an encoder that stays as it is made beforehand, a listing also has its title's as "title_vector",
    with `picture_vectors` its picture's as "image_vector"; beside these, pixels may be left out.
    """

    path: str = chz.field(doc="folder with images.bin, images.idx.tsv, items.tsv, split.tsv; may begin with $NAME")
    split: Split = "train"
    height: int = 80
    width: int = 60
    tokens: int = chz.field(default=4000, doc="size of the tokenizer that is learnt")
    tokenizer: str | None = chz.field(
        default=None, doc="tokenizer.json or vocab.txt of published weights; may begin with $NAME; None: learnt"
    )
    vectors: str | None = chz.field(default=None, doc="vectors of the titles by product, as embed wrote them")
    picture_vectors: str | None = chz.field(default=None, doc="vectors of the pictures by listing, as embed wrote them")
    pixels: bool = chz.field(default=True, doc="False: pictures are not decoded, where their vectors are enough")
    length: int = chz.field(default=16, doc="tokens of a title kept")
    max_rejects: float = chz.field(default=0.01, doc="share of rows that may be set aside before the run stops")
    cache: str | None = chz.field(default=None, doc="cache folder; default: $XDG_CACHE_HOME/adloom or ~/.cache/adloom")

    def make(self) -> Source:
        return self._open(self._listings(), more=())

    def _listings(self) -> pa.Table:
        """Of both splits."""
        manual = Manual(expand(self.path), home=HOME, max_rejects=self.max_rejects, md5={})
        items = listings(manual)
        report(manual.rejects, manual.rows, path=None, max_share=self.max_rejects)
        return items

    def _open(self, items: pa.Table, *, more: tuple[Label, ...]) -> "PackedPictures":
        """`more` labels are integer columns of the table, below zero where a listing states none."""
        vocabularies = self._vocabularies(items)
        vectors = [
            VectorsById(path, name=name, of=of)
            for name, of, path in ((VECTOR, "product", self.vectors), (PICTURE_VECTOR, "id", self.picture_vectors))
            if path is not None
        ]
        image = Image(name="image", height=self.height, width=self.width, role="item")
        features: tuple[Feature, ...] = (
            *((image,) if self.pixels else ()),
            self._title(vocabularies),
            *(Dense(name=v.name, dim=v.dim, role="item") for v in vectors),
            Label(name="product", type="class"),
            *more,
        )
        return PackedPictures(
            self._of_split(items).combine_chunks(),
            path=Path(expand(self.path)) / BYTES,
            features=Features(all=features),
            numbered=tuple(label.name for label in more),
            vocabularies=vocabularies,
            vectors=vectors,
        )

    def _of_split(self, items: pa.Table) -> pa.Table:
        return items if self.split == "all" else items.filter(pc.equal(items["split"], self.split))

    def _title(self, vocabularies: Vocabularies) -> Text:
        size = vocabularies.tokenizer(TITLE).get_vocab_size()
        return Text(name="title", tokens=size, length=self.length, tokenizer=TITLE, role="item")

    def _vocabularies(self, items: pa.Table) -> Vocabularies:
        """The tokenizer of the training titles, or a copy of the one that is named."""
        if self.tokenizer is not None:
            return self._given(expand(self.tokenizer))
        items = items.filter(pc.equal(items["split"], "train"))
        key = _digest(f"{self.tokens}\n".encode())
        key.update("\n".join(items["title"].to_pylist()).encode())
        folder = Path(self.cache or default_cache()) / "tokenizers" / key.hexdigest()
        if not (folder / TITLE).exists():
            texts = Texts(["title"])
            texts.add(items)
            save(texts.learn(size=self.tokens), target=folder / TITLE)
        return Vocabularies(folder)

    def _given(self, path: Path) -> Vocabularies:
        if not path.is_file():
            raise UserError(f"{path}: no such tokenizer; name the tokenizer.json or vocab.txt of the weights")
        folder = Path(self.cache or default_cache()) / "tokenizers" / _digest(path.read_bytes()).hexdigest()
        if not (folder / TITLE).exists():
            save(load(path), target=folder / TITLE)
        return Vocabularies(folder)


def _digest(data: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)


class VectorsById:
    """The vectors of a file or folder, by a column of the listings."""

    def __init__(self, path: str, *, name: str, of: str):
        self.path, self.name, self.of = path, name, of
        if not Path(path).exists():
            raise UserError(f"{path}: no such vectors; run the stage that embeds them first")
        ids, self._vectors, _ = read(Path(path))
        self.dim = self._vectors.shape[1]
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]

    def rows(self, items: pa.Table) -> np.ndarray:
        wanted = items[self.of].to_numpy()
        at = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        if lost := np.unique(wanted[self._ids[at] != wanted]).tolist():
            raise UserError(f"{self.path} lacks {len(lost)} {self.of}s, such as {lost[0]}; embed all of them anew")
        return self._vectors[self._order[at]]


class PackedPictures:
    """Titles encoded in memory, pictures decoded when taken: all of them would take a hundred times the file."""

    def __init__(
        self,
        items: pa.Table,
        *,
        path: Path,
        features: Features,
        numbered: tuple[str, ...] = (),
        vocabularies: Vocabularies,
        vectors: Sequence[VectorsById] = (),
    ):
        """`numbered` columns are taken as they are."""
        self.features, self.vocabularies = features, vocabularies
        self._image = next((f for f in features.all if f.kind == "image"), None)
        encoded = features.without("image", *(v.name for v in vectors), *numbered)
        told = encode(items, features=encoded, vocabularies=vocabularies, file=str(path))
        kept = items.take(pa.array(told.keep))
        self._path, self._items, self.rejects = path, kept.select(["offset", "length"]), told.rejects
        self._rows = {**told.rows, **{name: _exact(kept, features[name], file=path) for name in numbered}}
        self._rows |= {v.name: v.rows(kept) for v in vectors}

    def __len__(self) -> int:
        return self._items.num_rows

    def __getitem__(self, index: int) -> Rows:
        return {name: array[0] for name, array in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        indices = np.asarray(indices)
        rows = {name: array[indices] for name, array in self._rows.items()}
        if self._image is None:
            return rows
        chosen = self._items.take(pa.array(indices))
        height, width, _ = self._image.shape
        image, faults = decode(pictures(self._path, chosen), height=height, width=width)
        for row, why in faults.items():
            raise UserError(
                f"{self._path}: the picture at byte {chosen['offset'][row]}: {why}; python -m data build fashion sets "
                "such listings aside"
            )
        return {self._image.name: image, **rows}

    def spell(self, tokens: np.ndarray) -> str:
        return self.vocabularies.tokenizer(TITLE).decode(tokens.tolist()).strip()


def _exact(items: pa.Table, feature: Feature, *, file: Path) -> np.ndarray:
    numbers = items[feature.name].to_numpy()
    array = numbers.astype(feature.dtype)
    if (array != numbers).any():
        raise UserError(
            f"{file}: {feature.name} {numbers[array != numbers][0]} does not fit {feature.dtype}; number anew"
        )
    return array


def parts(items: pa.Table, *, path: Path, chunk: int = 2048) -> Iterator[pa.Table]:
    """The listings with their pictures, a chunk at a time."""
    for at in range(0, items.num_rows, chunk):
        table = items.slice(at, chunk)
        yield table.append_column("image", pictures(path, table))
