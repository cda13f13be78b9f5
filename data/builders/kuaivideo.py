"""KuaiVideo_x1 of the BARS benchmark: clicks on short videos, with the videos clicked and those passed by before."""

from collections.abc import Mapping

import pyarrow as pa

from data.builders.base import Builder
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, Sequence, Time

PAST = pa.list_(pa.int64())


class Kuaivideo(Builder):
    """Train and test as published; the visual vectors (an HDF5 file) are not read."""

    home = "the BARS benchmark's KuaiVideo_x1 page (Open Benchmarking for Recommender Systems, data set cards)"
    citation = (
        "Li et al.: Routing Micro-videos via A Temporal Graph-guided Recommendation System, MM 2019. Split: BARS."
    )
    licence = "Research use."
    columns = pa.schema(
        [
            *((name, pa.float32()) for name in ("is_click", "is_like", "is_follow")),
            *((name, pa.int64()) for name in ("timestamp", "user_id", "item_id")),
            ("pos_items", PAST),
            ("neg_items", PAST),
        ]
    )
    keys = Keys(
        user="user_id",
        item="item_id",
        label="is_click",
        time="timestamp",
        histories={"pos_items": "item_id", "neg_items": "item_id"},
    )

    def parts(self, manual: Manual):
        return {split: self._rows(manual, split) for split in ("train", "test")}

    def _rows(self, manual: Manual, split: str):
        for table in manual.csv(f"{split}.csv", schema=self.columns, separator="^"):
            for name in ("is_click", "is_like", "is_follow"):
                table = manual.binary(table, name)
            yield table

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        item = Categorical(name="item_id", rows=rows["item_id"], encode="vocabulary", role="item")
        return Features(
            all=(
                Categorical(name="user_id", rows=rows["user_id"], encode="vocabulary", role="user"),
                item,
                Sequence(name="pos_items", of=item, length=100, role="user"),
                Sequence(name="neg_items", of=item, length=100, role="user"),
                Time(name="timestamp"),
                Label(name="is_click"),
                Label(name="is_like"),
                Label(name="is_follow"),
            )
        )
