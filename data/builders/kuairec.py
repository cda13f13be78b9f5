"""KuaiRec: who watched which short video for how long, and a small matrix in which everyone saw everything."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder
from data.building.interactions import look_up, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.columns import split
from data.features import Categorical, Features, Label, MultiHot, Numeric, Time

LIKED = 2.0
"""Watched at least twice over: the owner's threshold for interest."""
USER = (
    "user_active_degree", "is_live_streamer", "is_video_author", "follow_user_num_range", "fans_user_num_range",
    "friend_user_num_range", "register_days_range",
)  # fmt: skip
VALID = 0.1


class Kuairec(Builder):
    """The big matrix trains and, its last tenth of time, validates; the fully observed small matrix tests.

    Both matrices were logged over the same weeks: the build says how much training lies after the first test row.
    """

    home = "https://kuairec.com (KuaiRec 2.0; big_matrix.csv, small_matrix.csv, item_categories.csv, user_features.csv)"
    citation = (
        "Gao et al.: KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems, CIKM 2022."
    )
    licence = "CC BY-SA 4.0."
    columns = pa.schema(
        [
            ("liked", pa.float32()),
            ("watch_ratio", pa.float32()),
            ("user_id", pa.int64()),
            ("video_id", pa.int64()),
            ("video_duration", pa.float32()),
            ("time", pa.int64()),
            ("categories", pa.list_(pa.string())),
            *((name, pa.string()) for name in USER),
        ]
    )
    keys = Keys(user="user_id", item="video_id", label="liked", time="time")

    def parts(self, manual: Manual):
        times = np.concatenate([t["timestamp"].to_numpy() for t in self._matrix(manual, "big_matrix.csv")])
        mark = float(np.nanquantile(times, 1 - VALID)) if len(times) else 0.0
        return {
            "train": self._rows(manual, "big_matrix.csv", high=mark),
            "valid": self._rows(manual, "big_matrix.csv", low=mark),
            "test": self._rows(manual, "small_matrix.csv"),
        }

    def _matrix(self, manual: Manual, name: str) -> Iterator[pa.Table]:
        schema = pa.schema(
            [
                *((n, pa.int64()) for n in ("user_id", "video_id")),
                *((n, pa.float64()) for n in ("video_duration", "timestamp", "watch_ratio")),
            ]
        )
        yield from manual.csv(name, schema=schema)

    def _rows(self, manual: Manual, name: str, *, low: float = -np.inf, high: float = np.inf) -> Iterator[pa.Table]:
        text = pa.string()
        users = whole(manual.csv("user_features.csv", schema=_schema({"user_id": pa.int64()}, USER), key="user_id"))
        items = whole(
            manual.csv(
                "item_categories.csv", schema=pa.schema([("video_id", pa.int64()), ("feat", text)]), key="video_id"
            )
        )
        lists = split(pc.replace_substring_regex(items["feat"].combine_chunks(), r"[\[\]\s]", ""), ",")
        items = pa.table({"video_id": items["video_id"], "categories": lists})
        for table in self._matrix(manual, name):
            ratio = table["watch_ratio"].to_numpy()
            table = manual.keep(table, np.isfinite(ratio) & (ratio >= 0), field="watch_ratio", why="no ratio")
            stamp = np.nan_to_num(table["timestamp"].to_numpy())  # some rows of the small matrix have no time
            chosen = (stamp >= low) & (stamp < high)
            table = table.append_column("time", pa.array(stamp.astype(np.int64))).filter(pa.array(chosen))
            liked = pc.greater_equal(table["watch_ratio"], LIKED).cast(pa.float32())
            table = look_up(table.append_column("liked", liked), on="user_id", other=users)
            yield look_up(table, on="video_id", other=items)

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str, role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        category = Categorical(name="category", rows=rows["category"], encode="vocabulary")
        return Features(
            all=(
                field("user_id", "user"),
                field("video_id", "item"),
                *(field(name, "user") for name in USER),
                MultiHot(name="categories", of=category, length=8, role="item"),
                Numeric(name="video_duration", transform="log1p", default=0.0, role="item"),
                Time(name="time", origin=1_577_836_800),
                Label(name="liked"),
            )
        )


def _schema(ids: dict, texts: tuple[str, ...]) -> pa.Schema:
    return pa.schema([*ids.items(), *((name, pa.string()) for name in texts)])
