"""MBE (MM-Bench-E-Commerce) of MOON: products with title, picture address, category path and attributes."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder
from data.building.interactions import distinct, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, MultiHot, Text
from data.hashing import hash_column

RENAME = {
    "id": "id",
    "title": "doc_title",
    "image_url": "doc_image",
    "industry": "doc_industry_name",
    **{f"category{n}": f"doc_cate{n}_name" for n in (1, 2, 3, 4)},
    "attributes": "doc_attributes",
}
CATEGORIES = ("industry", "category1", "category2", "category3", "category4")


class Mbe(Builder):
    """Products of a marketplace, train and test as published. Pictures are addresses, not bytes.

    Assumed, since the owner's card does not document the files: JSON lines `train.jsonl` and `test.jsonl` (the hub's
    export) with id, doc_title, doc_image, doc_industry_name, doc_cate1_name .. doc_cate4_name and doc_attributes, which
    is "name:value" pairs between ",,". `product` numbers distinct titles by hash, for contrastive tasks.
    """

    home = "https://huggingface.co/datasets/Daoze/MM-Bench-E-Commerce (export each split as JSON lines)"
    citation = (
        "Zhang et al.: MOON: Generative MLLM-based Multimodal Representation Learning for E-commerce Product "
        "Understanding, WSDM 2026, arXiv 2508.11999."
    )
    together = True
    licence = "Apache-2.0 (owner's card)."
    columns = pa.schema(
        [
            *((name, pa.string()) for name in ("id", "title", "image_url", *CATEGORIES)),
            ("attributes", pa.list_(pa.string())),
            ("product", pa.int64()),
        ]
    )
    keys = Keys(item="id")

    def parts(self, manual: Manual):
        for split in ("train", "test"):
            manual.find(f"{split}.jsonl")
        held: dict[str, np.ndarray] = {}
        return {split: self._rows(manual, split, held) for split in ("train", "test")}

    def _rows(self, manual: Manual, split: str, held: dict[str, np.ndarray]) -> Iterator[pa.Table]:
        schema = pa.schema([(name, pa.string()) for name in RENAME])
        table = whole(manual.json_lines(f"{split}.jsonl", schema=schema, rename=RENAME))
        table = manual.keep(table, pc.not_equal(table["title"], ""), field="title", why="no title")
        table = distinct(manual, table, by=("id",))
        product = (hash_column(table["title"].combine_chunks()) >> np.uint64(33)).astype(np.int64)
        held[split] = product
        if split == "test" and "train" in held:
            both = int(np.isin(product, held["train"]).sum())
            manual.notes.append(f"{'LEAK ' if both else ''}test products with the title of a training product: {both}")
        pairs = [[pair for pair in text.split(",,") if pair] for text in table["attributes"].to_pylist()]
        at = table.column_names.index("attributes")
        table = table.set_column(at, "attributes", pa.array(pairs, pa.list_(pa.string())))
        yield table.append_column("product", pa.array(product))

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def category(name: str) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role="item")

        return Features(
            all=(
                Text(name="title", tokens=rows["title.json"], length=48, tokenizer="title.json", role="item"),
                *(category(name) for name in CATEGORIES),
                MultiHot(name="attributes", of=category("attributes"), length=16, role="item"),
                Label(name="product", type="class"),
            )
        )
