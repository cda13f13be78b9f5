"""MicroLens: short-video comments as implicit feedback (50K, 100K), and the MMCTR challenge's click table (1M_x1)."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.interactions import TARGET_COLUMNS, Log, distinct, event_columns, look_up, numbered, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Dense, Features, Group, Label, MultiHot, Role, Sequence, Text, Time

ORIGIN = 1_500_000_000
HISTORY = 50
TWO = "_leave_last_two"
FOLDER = "MicroLens_1M_x1/"
PAST = 64


class Microlens(Builder):
    """Who commented on which video, split by time, with the title; or the challenge's rows with its item vectors.

    Left out on purpose: likes_and_views.txt counts until the crawl, test period included. The levels of the challenge
    are given with each row and kept. Assumed of the challenge: item id 0 pads a history, at its beginning.
    """

    BUILDER_CONFIGS = [
        *(Config(name=name, description="a row per comment, split by time") for name in ("100k", "50k")),
        *(Config(name=name + TWO, description="a sequence per user") for name in ("100k", "50k")),
        Config(name="mmctr", description="MicroLens_1M_x1 of the WWW 2025 challenge: train and valid have labels"),
    ]
    home = "https://recsys.westlake.edu.cn (MicroLens-50k-Dataset, MicroLens-100k-Dataset, MicroLens_1M_MMCTR)"
    citation = "Ni et al.: A Content-Driven Micro-Video Recommendation Dataset at Scale, arXiv 2309.15379, 2023."
    licence = "Research use; no second distribution of altered copies (owner's notice)."

    @property
    def keys(self) -> Keys:
        name = self.builder_config.name
        if name == "mmctr":
            return Keys(user="user_id", item="item_id", label="label", histories={"item_seq": "item_id"})
        if name.endswith(TWO):
            return Keys(user="user", item="target", time="time", histories={"history": "target"})
        return Keys(user="user", item="item", time="time", histories={"history": "item"})

    def stored(self) -> pa.Schema:
        name = self.builder_config.name
        if name.endswith(TWO):
            return TARGET_COLUMNS
        if name != "mmctr":
            return event_columns(item=pa.int64(), more=(("title", pa.string()),))
        ids = ("user_id", "item_id", "likes_level", "views_level")
        lists = (("item_seq", pa.list_(pa.int64())), ("item_tags", pa.list_(pa.int64())))
        vector = ("item_emb", pa.list_(pa.float32()))
        return pa.schema([("label", pa.float32()), *((n, pa.int64()) for n in ids), *lists, vector])

    def parts(self, manual: Manual):
        name = self.builder_config.name
        if name == "mmctr":
            info = self._items(manual)
            return {split: self._clicks(manual, split, info) for split in ("train", "valid")}
        release = f"MicroLens-{name.removesuffix(TWO)}"
        log = self._pairs(manual, release)
        if name.endswith(TWO):
            items, self.sizes["item"] = numbered(log["item"])
            return Log(log, length=HISTORY).last_two(items=items, manual=manual)
        titles = pa.schema([("item", pa.int64()), ("title", pa.string())])
        files = (f"{release}_title_en.csv", f"{release}_titles.csv")
        known = whole(manual.csv(*files, schema=titles, has_header=False, key="item"))
        return Log(look_up(log, on="item", other=known), length=HISTORY).temporal()

    def _pairs(self, manual: Manual, release: str) -> pa.Table:
        schema = pa.schema([("user", pa.int64()), ("item", pa.int64()), ("time", pa.int64())])
        tables = manual.csv(f"{release}_pairs.csv", schema=schema, rename={"time": "timestamp"})
        table = distinct(manual, whole(tables), by=("user", "item", "time"))
        seconds = table["time"].to_numpy()
        seconds = np.where(seconds > 10**11, seconds // 1000, seconds)  # milliseconds in the published files
        return table.set_column(table.column_names.index("time"), "time", pa.array(seconds))

    def _items(self, manual: Manual) -> pa.Table:
        schema = pa.schema(
            [
                ("item_id", pa.int64()),
                ("item_tags", pa.list_(pa.int64())),
                ("item_emb_d128", pa.list_(pa.float32())),
            ]
        )
        table = whole(manual.parquet(self._place(manual, "item_info.parquet"), schema=schema))
        tags = [[tag for tag in row if tag] for row in table["item_tags"].to_pylist()]  # 0 pads
        table = table.set_column(1, "item_tags", pa.array(tags, pa.list_(pa.int64())))
        return table.rename_columns({"item_emb_d128": "item_emb"})

    def _clicks(self, manual: Manual, split: str, info: pa.Table):
        names = ("label", "user_id", "item_id", "likes_level", "views_level", "item_seq")
        kinds = {"label": pa.float32(), "item_seq": pa.list_(pa.int64())}
        schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in names])
        for table in manual.parquet(self._place(manual, f"{split}.parquet"), schema=schema):
            table = manual.binary(table, "label")
            known = np.isin(table["item_id"].to_numpy(), info["item_id"].to_numpy())
            table = manual.keep(table, known, field="item_id", why="not in item_info")
            table = look_up(table, on="item_id", other=info)
            past = [[item for item in row if item] for row in table["item_seq"].to_pylist()]
            at = table.column_names.index("item_seq")
            yield table.set_column(at, "item_seq", pa.array(past, pa.list_(pa.int64())))

    def _place(self, manual: Manual, file: str) -> str:
        return FOLDER + file if manual.has(FOLDER + file) else file

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        name = config or cls.BUILDER_CONFIGS[0].name

        def category(field: str, role: Role) -> Categorical:
            return Categorical(name=field, rows=rows[field], encode="vocabulary", role=role)

        if name == "mmctr":
            item = category("item_id", "item")
            return Features(
                all=(
                    item,
                    MultiHot(name="item_tags", of=category("item_tags", "item"), length=5, role="item"),
                    Dense(name="item_emb", dim=128, role="item"),
                    category("likes_level", "item"),
                    category("views_level", "item"),
                    Sequence(name="item_seq", of=item, length=PAST, role="user"),
                    Group(name="user_id"),
                    Label(name="label"),
                )
            )
        if name.endswith(TWO):
            item = Categorical(name="item", rows=rows["item"], role="user")
            history = Sequence(name="history", of=item, length=HISTORY, role="user")
            target = Label(name="target", type="class")
            return Features(all=(history, target, Group(name="user"), Time(name="time", origin=ORIGIN)))
        item = category("item", "item")
        return Features(
            all=(
                category("user", "user"),
                item,
                Text(name="title", tokens=rows["title.json"], length=32, tokenizer="title.json", role="item"),
                Sequence(name="history", of=item, length=HISTORY, role="user"),
                Time(name="time", origin=ORIGIN),
            )
        )
