"""The DIN protocol on Amazon's reviews: candidate item, past items and their categories, one negative a positive."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, Sequence

PAST = pa.list_(pa.int64())
SPLITS = {
    "x1": ("train", "test"),
    "with_valid": ("train", "valid", "test"),
    "without_test": ("train", "valid"),
}


class AmazonDin(Builder):
    """Rows of `label,user_id,item_id,cate_id,item_history,cate_history`, histories oldest first and split by ^."""

    BUILDER_CONFIGS = [
        Config(name="x1", description="train and test, as AmazonElectronics_x1"),
        Config(name="with_valid", description="train, valid and test"),
        Config(name="without_test", description="train and valid, where the test part is kept back"),
    ]
    home = "the BARS benchmark's AmazonElectronics_x1 page (or its protocol applied to another category)"
    citation = (
        "He, McAuley: Ups and Downs, WWW 2016 (the reviews). Zhou et al.: Deep Interest Network, KDD 2018 (the "
        "protocol). Zhu et al.: BARS, SIGIR 2022 (the split)."
    )
    licence = "Amazon reviews: research use."
    columns = pa.schema(
        [
            ("label", pa.float32()),
            *((name, pa.int64()) for name in ("user_id", "item_id", "cate_id")),
            ("item_history", PAST),
            ("cate_history", PAST),
        ]
    )
    keys = Keys(user="user_id", item="item_id", label="label", histories={"item_history": "item_id"})

    def parts(self, manual: Manual):
        splits = SPLITS[self.builder_config.name]
        needs = (f"{name} needs {' '.join(parts)}" for name, parts in SPLITS.items())
        manual.hint = f"; configs: {', '.join(needs)}"
        for split in splits:
            manual.find(f"{split}.csv")
        return {split: self._rows(manual, split) for split in splits}

    def _rows(self, manual: Manual, split: str):
        for table in manual.csv(f"{split}.csv", schema=self.columns, separator="^"):
            table = manual.binary(table, "label")
            items, categories = (
                table[name].combine_chunks().value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
                for name in ("item_history", "cate_history")
            )
            why = "as many categories as items are due"
            yield manual.keep(table, np.equal(items, categories), field="cate_history", why=why)

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        user = Categorical(name="user_id", rows=rows["user_id"], encode="vocabulary", role="user")
        item = Categorical(name="item_id", rows=rows["item_id"], encode="vocabulary", role="item")
        category = Categorical(name="cate_id", rows=rows["cate_id"], encode="vocabulary", role="item")
        return Features(
            all=(
                user,
                item,
                category,
                Sequence(name="item_history", of=item, length=100, role="user"),
                Sequence(name="cate_history", of=category, length=100, role="user"),
                Label(name="label"),
            )
        )
