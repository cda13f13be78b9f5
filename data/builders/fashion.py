"""Fashion Product Images (KAGL): product photos with title and attributes, as published or packed."""

import hashlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Image, Label, Text
from data.images import decode
from data.packed_images import ATTRIBUTES, BYTES, TITLE, listings, numbered, parts

CHUNK = 2048


class Fashion(Builder):
    """One row per listing. Equal titles share a `product`, since a text cannot tell them apart.

    The published release has no split: products (equal titles) are drawn 80, 10, 10 by the hash of the title. The
    packed form (`data.packed_images`) brings its own, train and val, kept as it is and named train and valid.
    """

    BUILDER_CONFIGS = [
        Config(name="public", description="styles.csv and images/<id>.jpg"),
        Config(name="packed", description="images.bin, images.idx.tsv, items.tsv, split.tsv"),
    ]
    home = "https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small (or -dataset, large pictures)"
    citation = "Param Aggarwal: Fashion Product Images Dataset, Kaggle, 2019."
    together = True
    licence = "MIT, says the owner's page; the pictures come from a shop."
    keys = Keys(item="product")
    columns = pa.schema(
        [
            ("id", pa.int64()),
            ("product", pa.int64()),
            ("title", pa.string()),
            *((name, pa.string()) for name in ATTRIBUTES),
            ("image", pa.large_binary()),
        ]
    )

    def parts(self, manual: Manual):
        if self.builder_config.name == "packed":
            items, path = listings(manual), manual.find(BYTES)
            self._overlap(manual, items)
            part = {"train": "train", "valid": "val"}
            chosen = {name: items.filter(pc.equal(items["split"], value)) for name, value in part.items()}
            return {name: self._seen(manual, parts(table, path=path)) for name, table in chosen.items()}
        items = self._styles(manual)
        drawn = pa.array([_part(title) for title in items["title"].to_pylist()])
        return {
            name: self._seen(manual, self._with_files(manual, items.filter(pc.equal(drawn, name))))
            for name in ("train", "valid", "test")
        }

    def _overlap(self, manual: Manual, items: pa.Table) -> None:
        train = pc.equal(items["split"], "train")
        known = items.filter(train)["product"].combine_chunks()
        both = pc.sum(pc.is_in(items.filter(pc.invert(train))["product"], known)).as_py() or 0
        manual.notes.append(f"{both} valid listings have the title of a training listing: LEAK for zero-shot claims")

    def _styles(self, manual: Manual) -> pa.Table:
        schema = pa.schema([("id", pa.int64()), ("title", pa.string()), *((n, pa.string()) for n in ATTRIBUTES)])
        tables = manual.csv("styles.csv", schema=schema, rename={"title": "productDisplayName"}, key="id")
        items = whole(tables)  # commas in names are not quoted in the release: those lines are set aside
        there = [(manual.folder / "images" / f"{id}.jpg").is_file() for id in items["id"].to_pylist()]
        if not any(there):
            manual.glob("images/*.jpg")
        return numbered(manual.keep(items, there, field="id", why="no picture"))

    def _with_files(self, manual: Manual, items: pa.Table) -> Iterator[pa.Table]:
        for at in range(0, items.num_rows, CHUNK):
            table = items.slice(at, CHUNK)
            files = [manual.folder / "images" / f"{id}.jpg" for id in table["id"].to_pylist()]
            yield table.append_column("image", pa.array([file.read_bytes() for file in files], pa.large_binary()))

    def _seen(self, manual: Manual, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Without the pictures that do not decode."""
        for table in tables:
            _, faults = decode(table["image"].combine_chunks(), height=8, width=8)
            good = [row not in faults for row in range(table.num_rows)]
            yield manual.keep(table, good, field="id", why="picture does not decode")

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        attributes = (Categorical(name=n, rows=rows[n], encode="vocabulary", role="item") for n in ATTRIBUTES)
        return Features(
            all=(
                Image(name="image", height=80, width=60, role="item"),
                Text(name="title", tokens=rows[TITLE], length=16, tokenizer=TITLE, role="item"),
                *attributes,
                Label(name="product", type="class"),
            )
        )


def _part(title: str) -> str:
    drawn = hashlib.blake2b(title.encode(), digest_size=8).digest()[0] / 256
    return "test" if drawn < 0.1 else "valid" if drawn < 0.2 else "train"
