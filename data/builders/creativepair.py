"""CreativePair of Creative4U: two ad pictures of one product, and which had the higher click rate."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder
from data.building.interactions import whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Features, Image, Label, Text
from data.images import decode

CHUNK = 512
SIDES = ("image_a", "image_b")


class Creativepair(Builder):
    """Pairs of creatives with the product's title and frequent queries; label 1 says that picture A won.

    The set was announced, and no public copy has been seen. Assumed: `train.jsonl` and `test.jsonl`, an object a line
    with id, image_a, image_b (paths below the folder), title, queries (a list) and label ("A" or "B"). Validation is a
    tenth of the training titles by hash, so that a product is in one part. A pair and its mirror are one example:
    evaluate both orders for position bias.
    """

    home = "the authors of arXiv 2508.12628 (Creative4U; data announced there)"
    citation = (
        "Lin et al.: Creative4U: MLLMs-based Advertising Creative Image Selector with Comparative Reasoning, "
        "arXiv 2508.12628, 2025."
    )
    together = True
    licence = "Not published; ask the owner."
    columns = pa.schema(
        [
            ("id", pa.string()),
            ("title", pa.string()),
            ("queries", pa.string()),
            ("label", pa.float32()),
            *((side, pa.large_binary()) for side in SIDES),
        ]
    )
    keys = Keys(item="title", label="label")

    def parts(self, manual: Manual):
        tables = {split: self._pairs(manual, f"{split}.jsonl") for split in ("train", "test")}
        both = set(tables["train"]["title"].to_pylist()) & set(tables["test"]["title"].to_pylist())
        manual.notes.append(f"{'LEAK ' if both else ''}titles in train and in test: {len(both)}")
        held = np.array([_held(title) for title in tables["train"]["title"].to_pylist()])
        chosen = {
            "train": tables["train"].filter(pa.array(~held)),
            "valid": tables["train"].filter(pa.array(held)),
            "test": tables["test"],
        }
        return {split: self._with_pictures(manual, table) for split, table in chosen.items()}

    def _pairs(self, manual: Manual, file: str) -> pa.Table:
        text = pa.string()
        schema = pa.schema(
            [("id", text), ("title", text), *((side, text) for side in SIDES), ("label", text)]
            + [("queries", pa.list_(text))]
        )
        table = whole(manual.json_lines(file, schema=schema))
        known = np.isin(table["label"].to_pylist(), ("A", "B"))
        table = manual.keep(table, known, field="label", why="neither A nor B")
        won = np.array([label == "A" for label in table["label"].to_pylist()], np.float32)
        joined = [" | ".join(queries or []) for queries in table["queries"].to_pylist()]
        for name, values in (("label", pa.array(won)), ("queries", pa.array(joined, text))):
            table = table.set_column(table.column_names.index(name), name, values)
        return table

    def _with_pictures(self, manual: Manual, table: pa.Table) -> Iterator[pa.Table]:
        for at in range(0, table.num_rows, CHUNK):
            part = table.slice(at, CHUNK)
            for side in SIDES:
                files = [manual.folder / name for name in part[side].to_pylist()]
                part = manual.keep(part, [file.is_file() for file in files], field=side, why="no such picture")
                bytes_ = [(manual.folder / name).read_bytes() for name in part[side].to_pylist()]
                pictures = pa.array(bytes_, pa.large_binary())
                _, faults = decode(pictures, height=8, width=8)
                part = part.set_column(part.column_names.index(side), side, pictures)
                good = np.array([row not in faults for row in range(part.num_rows)], bool)
                part = manual.keep(part, good, field="id", why=f"{side} does not decode")
            yield part

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        return Features(
            all=(
                *(Image(name=side, height=64, width=64, role="item") for side in SIDES),
                Text(name="title", tokens=rows["text.json"], length=32, tokenizer="text.json", role="item"),
                Text(name="queries", tokens=rows["text.json"], length=32, tokenizer="text.json", role="context"),
                Label(name="label"),
            )
        )


def _held(title: str) -> bool:
    return hashlib.blake2b(title.encode(), digest_size=8).digest()[0] < 26
