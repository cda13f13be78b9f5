"""Avazu's mobile ads of the Kaggle challenge: ten days of impressions, in the order of time."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.parts import at_random, between
from data.building.read import Manual
from data.features import Categorical, Features, Label, Role, Time

TEXTS = ("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category")
DEVICE = ("device_id", "device_ip", "device_model")
CODES = ("device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22)))
FIELDS = ("C1", "banner_pos", *TEXTS, *DEVICE, *CODES)
CLOCK = ("hour_of_day", "weekday", "is_weekend")
START = 1413849600
"""2014-10-21 00:00 in the log's own clock."""
DAY = 86_400
LARGE = {"device_id": 1 << 20, "device_ip": 1 << 20}


class Avazu(Builder):
    """The labelled file; the row's id is dropped and the hour becomes hour of day, weekday and weekend."""

    BUILDER_CONFIGS = [
        Config(name="temporal", description="days 21 to 28 train, 29 validates, 30 tests"),
        Config(name="random", description="8:1:1 by a hash of the row's number"),
    ]
    home = "Kaggle's page of Avazu's Click-Through Rate Prediction challenge (file train.gz)"
    citation = "Avazu: Click-Through Rate Prediction, Kaggle, 2014."
    licence = "The rules of the challenge: research; no redistribution."
    columns = pa.schema(
        [
            ("click", pa.float32()),
            ("time", pa.int64()),
            *((name, pa.int64()) for name in CLOCK),
            *((name, pa.string()) for name in FIELDS),
        ]
    )
    keys = Keys(user="device_ip", item="site_id", label="click", time="time")

    def parts(self, manual: Manual):
        if self.builder_config.name == "random":
            return {split: at_random(self._rows(manual), split) for split in ("train", "valid", "test")}
        marks = {"train": (0, 8), "valid": (8, 9), "test": (9, 10)}
        return {
            split: between(self._rows(manual), "time", low=START + a * DAY, high=START + b * DAY)
            for split, (a, b) in marks.items()
        }

    def _rows(self, manual: Manual):
        schema = pa.schema([("click", pa.float32()), ("hour", pa.int64()), *((n, pa.string()) for n in FIELDS)])
        for table in manual.csv("train", "train.csv", schema=schema):
            table = manual.binary(table, "click")
            stamp, good = seconds(table["hour"].to_numpy())
            good &= (stamp >= START) & (stamp < START + 10 * DAY)
            table = manual.keep(table, good, field="hour", why="no hour of the ten days")
            stamp = stamp[good]
            weekday = (stamp // DAY + 3) % 7  # day 0 was a Thursday; Monday is 0
            added = {"hour_of_day": stamp // 3600 % 24, "weekday": weekday, "is_weekend": (weekday > 4).astype(int)}
            for name, values in {"time": stamp, **added}.items():
                table = table.append_column(name, pa.array(values, pa.int64()))
            yield table

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str) -> Categorical:
            role: Role = "user" if name in DEVICE else "context"
            if name in LARGE:
                return Categorical(name=name, rows=LARGE[name], encode="hash", role=role)
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        inputs = (field(name) for name in (*CLOCK, *FIELDS))
        return Features(all=(*inputs, Time(name="time", origin=START), Label(name="click")))


def seconds(hours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """YYMMDDHH as seconds, and which of them are hours of the calendar."""
    year, month, day, hour = hours // 1_000_000 + 2000, hours // 10_000 % 100, hours // 100 % 100, hours % 100
    good = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (hour < 24) & (hours > 0)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    return np.where(good, days * DAY + hour * 3600, 0), good
