"""Frappe_x1 of the BARS benchmark: which app is used in which context."""

from collections.abc import Mapping

import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, Role

FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
ROLES: Mapping[str, Role] = {"user": "user", "item": "item"}


class Frappe(Builder):
    """Mobile app usage logs with context, two sampled negatives a positive, random 7:2:1 split as published."""

    BUILDER_CONFIGS = [
        Config(name="x1", description="train, valid and test as published"),
        Config(name="x1_without_test", description="train and valid, where the test part is kept back"),
    ]
    home = "the BARS benchmark's Frappe_x1 page (Open Benchmarking for Recommender Systems, data set cards)"
    citation = (
        "Baltrunas, Church, Karatzoglou, Oliver: Frappe: Understanding the Usage and Perception of Mobile App "
        "Recommendations In-The-Wild, 2015. Split: Zhu et al., BARS, SIGIR 2022."
    )
    licence = "Research use only; no redistribution."
    md5 = {"valid.csv": "88d51bf2173505436d3a8f78f2a59da8"}
    columns = pa.schema([("label", pa.float32()), *((name, pa.int64()) for name in FIELDS)])
    keys = Keys(user="user", item="item", label="label")

    def parts(self, manual: Manual):
        splits = ("train", "valid") if self.builder_config.name.endswith("without_test") else ("train", "valid", "test")
        if not manual.has("test.csv") and "test" in splits:
            manual.hint = "; or leave the test part out with --config x1_without_test"
        for split in splits:
            manual.find(f"{split}.csv")
        return {split: self._rows(manual, split) for split in splits}

    def _rows(self, manual: Manual, split: str):
        for table in manual.csv(f"{split}.csv", schema=self.columns):
            yield manual.binary(table, "label")

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        inputs = (
            Categorical(name=name, rows=rows[name], encode="vocabulary", role=ROLES.get(name, "context"))
            for name in FIELDS
        )
        return Features(all=(*inputs, Label(name="label")))
