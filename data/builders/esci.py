"""ESCI, Amazon's Shopping Queries: which product is exact, a substitute, a complement or irrelevant to a query."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Group, Label, Text

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
"""Of the published nDCG."""
WORDS = "words.json"
KEY = "product"


class Esci(Builder):
    """Query and product pairs in English, Spanish and Japanese, split as published."""

    BUILDER_CONFIGS = [
        Config(name="small", description="task 1, query and product ranking: the hard queries"),
        Config(name="large", description="tasks 2 and 3, classification: all queries"),
    ]
    home = "Amazon Science's repository esci-data, folder shopping_queries_dataset"
    citation = "Reddy et al.: Shopping Queries Dataset: A Large-Scale ESCI Benchmark, 2022 (arXiv 2206.06588)."
    licence = "Apache 2.0."
    columns = pa.schema(
        [
            ("gain", pa.float32()),
            ("exact", pa.float32()),
            ("esci_label", pa.string()),
            ("query_id", pa.int64()),
            *((name, pa.string()) for name in ("query", "product_id", "product_locale", "title", "brand", "color")),
        ]
    )
    keys = Keys(user="query_id", item="product_id", label="exact")

    def parts(self, manual: Manual):
        products = self._products(manual)
        return {split: self._rows(manual, products, split) for split in ("train", "test")}

    def _products(self, manual: Manual) -> pa.Table:
        given = ("product_id", "product_locale", "product_title", "product_brand", "product_color")
        schema = pa.schema([(name, pa.string()) for name in given])
        table = whole(manual.parquet("*products.parquet", schema=schema))
        return table.append_column(KEY, _key(table))

    def _rows(self, manual: Manual, products: pa.Table, split: str) -> Iterator[pa.Table]:
        version = f"{self.builder_config.name}_version"
        texts = ("query", "product_id", "product_locale", "esci_label", "split")
        ids = [(name, pa.int64()) for name in ("query_id", version)]
        schema = pa.schema([*((name, pa.string()) for name in texts), *ids])
        known = products[KEY].combine_chunks()
        for table in manual.parquet("*examples.parquet", schema=schema):
            label = table["esci_label"]
            table = manual.keep(
                table,
                pc.is_in(label, value_set=pa.array(list(GAINS))).to_numpy(),
                field="esci_label",
                why="not E, S, C, I",
            )
            at = pc.index_in(_key(table), value_set=known)
            found = np.asarray(pc.is_valid(at))
            table = manual.keep(table, found, field="product_id", why="not among the products")
            chosen = np.asarray(table[version].to_numpy() == 1) & pc.equal(table["split"], split).to_numpy()
            table = table.filter(pa.array(chosen))
            at = pc.index_in(_key(table), value_set=known)
            for name in ("title", "brand", "color"):
                table = table.append_column(name, products[f"product_{name}"].take(at))
            gains = pa.array(list(GAINS.values()), pa.float32())
            which = pc.index_in(table["esci_label"], value_set=pa.array(list(GAINS)))
            table = table.append_column("gain", pa.chunked_array([gains]).take(which))
            yield table.append_column("exact", pc.equal(table["esci_label"], "E").cast(pa.float32()))

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str, role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        return Features(
            all=(
                Text(name="query", tokens=rows[WORDS], length=16, tokenizer=WORDS, role="user"),
                Text(name="title", tokens=rows[WORDS], length=48, tokenizer=WORDS, role="item"),
                field("product_locale", "context"),
                field("brand", "item"),
                field("color", "item"),
                Group(name="query_id"),
                Label(name="exact"),
                Label(name="gain", type="real"),
            )
        )


def _key(table: pa.Table) -> pa.Array:
    """A product is known by its id and its market."""
    return pc.binary_join_element_wise(table["product_id"], table["product_locale"], " ").combine_chunks()
