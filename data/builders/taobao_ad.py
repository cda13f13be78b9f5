"""Taobao's display ads (Ali_Display_Ad_Click): impressions, the ads, the people, and what these did in the shop."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import look_up, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, Numeric, Sequence, Time

START = 1_494_000_000
"""2017-05-06 00:00 in China, the first of eight days."""
DAY = 86_400
PROFILE = (
    "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level", "shopping_level", "occupation",
    "new_user_class_level",
)  # fmt: skip
AD = ("cate_id", "campaign_id", "customer", "brand")
MARKS = {"train": (0, 6), "valid": (6, 7), "test": (7, 8)}
LENGTH = 50
BUCKETS = 64
BEHAVIOUR = np.dtype([("user", "<i4"), ("time", "<i4"), ("cate", "<i4"), ("brand", "<i4")])


class TaobaoAd(Builder):
    """Six days train, the seventh validates, the eighth tests (the benchmark trains on seven).

    `with_history` adds each person's newest 50 acts before the impression. It sorts the acts into files by person
    first, 16 bytes an act, so memory holds the impressions and one file in 64; rows come out by person, not by time.
    """

    BUILDER_CONFIGS = [
        Config(name="temporal", description="impressions with ads and people"),
        Config(name="with_history", description="also what each person did before, from behavior_log.csv"),
    ]
    home = "Alibaba Tianchi's page of the data set Ad Display/Click Data on Taobao.com (Ali_Display_Ad_Click)"
    citation = "Tianchi: Ad Display/Click Data on Taobao.com, 2018. Zhou et al.: Deep Interest Network, KDD 2018."
    together = True
    licence = "CC BY-NC-SA 4.0."
    keys = Keys(user="user", item="adgroup_id", label="clk", time="time")

    @property
    def history(self) -> bool:
        return self.builder_config.name == "with_history"

    def stored(self) -> pa.Schema:
        past = [(f"{name}_history", pa.list_(pa.string())) for name in ("cate", "brand")] if self.history else []
        return pa.schema(
            [
                ("clk", pa.float32()),
                *((name, pa.int64()) for name in ("user", "adgroup_id", "time")),
                *((name, pa.string()) for name in ("pid", *AD, *PROFILE)),
                ("price", pa.float32()),
                *past,
            ]
        )

    def parts(self, manual: Manual):
        ads = whole(manual.csv("ad_feature.csv", schema=_ads(), key="adgroup_id"))
        for name in AD:
            ads = ads.set_column(
                ads.column_names.index(name), name, pc.replace_substring_regex(ads[name], "^NULL$", "")
            )
        people = whole(manual.csv("user_profile.csv", schema=_people(), rename={"user": "userid"}, key="user"))
        acts = None
        if self.history:
            folder = self.held.enter_context(tempfile.TemporaryDirectory(dir=self.data_dir))
            acts = _Acts(manual, folder=Path(folder))
        return {split: self._rows(manual, ads, people, acts, *days) for split, days in MARKS.items()}

    def _rows(self, manual: Manual, ads: pa.Table, people: pa.Table, acts, first: int, last: int) -> Iterator[pa.Table]:
        shown = self._shown(manual, START + first * DAY, START + last * DAY)
        for table in shown if acts is None else acts.join(shown):
            yield look_up(look_up(table, on="adgroup_id", other=ads), on="user", other=people)

    def _shown(self, manual: Manual, low: int, high: int) -> Iterator[pa.Table]:
        ids = [(name, pa.int64()) for name in ("user", "adgroup_id", "time")]
        flags = [(name, pa.float32()) for name in ("clk", "nonclk")]
        schema = pa.schema([*ids, *flags, ("pid", pa.string())])
        for table in manual.csv("raw_sample.csv", schema=schema, rename={"time": "time_stamp"}):
            table = manual.binary(table, "clk")
            other = table["nonclk"].to_numpy() == 1 - table["clk"].to_numpy()
            table = manual.keep(table, other, field="nonclk", why="not the contrary of clk")
            time = table["time"].to_numpy()
            good = (time >= START) & (time < START + 8 * DAY)
            table = manual.keep(table, good, field="time", why="outside the eight days")
            time = time[good]
            yield table.filter(pa.array((time >= low) & (time < high)))

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str, role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        past = tuple(
            Sequence(name=f"{short}_history", of=field(name, "item"), length=LENGTH, role="user")
            for short, name in (("cate", "cate_id"), ("brand", "brand"))
        )
        return Features(
            all=(
                field("user", "user"),
                field("adgroup_id", "item"),
                field("pid", "context"),
                *(field(name, "item") for name in AD),
                *(field(name, "user") for name in PROFILE),
                Numeric(name="price", transform="log1p", default=0.0, role="item"),
                *(past if config == "with_history" else ()),
                Time(name="time", origin=START),
                Label(name="clk"),
            )
        )


class _Acts:
    """behavior_log.csv in files by person, written once."""

    def __init__(self, manual: Manual, *, folder: Path):
        self._files = [folder / f"{number}.bin" for number in range(BUCKETS)]
        names = {"user": "user", "time": "time_stamp", "cate": "cate", "brand": "brand"}
        schema = pa.schema([*((name, pa.int64()) for name in ("user", "time", "cate")), ("brand", pa.int64())])
        opened = [file.open("ab") for file in self._files]
        try:
            for table in manual.csv("behavior_log.csv", schema=schema, rename=names):
                fits = np.ones(table.num_rows, bool)
                for name in names:
                    values = table[name].to_numpy()
                    fits &= (values >= 0) & (values < 1 << 31)
                table = manual.keep(table, fits, field="time", why="a value outside 31 bits")
                acts = np.empty(table.num_rows, BEHAVIOUR)
                for name in names:
                    acts[name] = table[name].to_numpy()
                bucket = acts["user"] % BUCKETS
                for number in np.unique(bucket):
                    acts[bucket == number].tofile(opened[number])
        finally:
            for file in opened:
                file.close()

    def join(self, shown: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Impressions with what their users did before, by person."""
        table = whole(shown)
        bucket = table["user"].to_numpy() % BUCKETS
        for number, file in enumerate(self._files):
            rows = np.flatnonzero(bucket == number)
            if not len(rows):
                continue
            chosen = table.take(pa.array(rows))
            acts = np.fromfile(file, BEHAVIOUR)
            keys = (acts["user"].astype(np.int64) << 32) + acts["time"]
            order = np.argsort(keys, kind="stable")
            keys, acts = keys[order], acts[order]
            user, time = chosen["user"].to_numpy(), chosen["time"].to_numpy()
            end = np.searchsorted(keys, (user << 32) + time)  # strictly before the impression
            lengths = np.minimum(end - np.searchsorted(keys, user << 32), LENGTH)
            offsets = np.cumsum([0, *lengths])
            at = np.repeat(end - lengths - offsets[:-1], lengths) + np.arange(offsets[-1])
            for name in ("cate", "brand"):
                values = pa.array(acts[name][at]).cast(pa.string())
                past = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
                chosen = chosen.append_column(f"{name}_history", past)
            yield chosen


def _ads() -> pa.Schema:
    return pa.schema([("adgroup_id", pa.int64()), *((name, pa.string()) for name in AD), ("price", pa.float32())])


def _people() -> pa.Schema:
    return pa.schema([("user", pa.int64()), *((name, pa.string()) for name in PROFILE)])
