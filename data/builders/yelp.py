"""Yelp Open Dataset: reviews with stars, joined with what the business is."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import TARGET_COLUMNS, Log, distinct, event_columns, look_up, numbered, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Group, Label, MultiHot, Role, Sequence, Time
from data.hashing import hash_column

ORIGIN = 1_000_000_000
HISTORY = 50
LIKED = 4.0
REVIEWS, BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
TWO = "leave_last_two"


class Yelp(Builder):
    """Reviews: liked is 4 stars or more; history is what the same user reviewed before.

    Left out on purpose: stars and review_count of businesses and average_stars of users sum up the test reviews too;
    useful, funny and cool are votes cast after the review.
    """

    BUILDER_CONFIGS = [
        Config(name="temporal", description="a row per review, split by time"),
        Config(name=TWO, description="a sequence per user with 4 reviews or more"),
    ]
    home = "https://business.yelp.com/data/resources/open-dataset/ (JSON files, after agreeing to the terms)"
    citation = "Yelp Open Dataset, Yelp Inc.; state the release, since each differs."
    licence = "Yelp Dataset Terms of Use: academic and personal use, no redistribution."

    @property
    def keys(self) -> Keys:
        if self.builder_config.name == TWO:
            return Keys(user="user", item="target", time="time", histories={"history": "target"})
        return Keys(user="user", item="item", label="liked", time="time", histories={"history": "item"})

    def stored(self) -> pa.Schema:
        if self.builder_config.name == TWO:
            return TARGET_COLUMNS
        more = (
            ("stars", pa.float32()),
            ("liked", pa.float32()),
            ("city", pa.string()),
            ("categories", pa.list_(pa.string())),
        )
        return event_columns(item=pa.string(), more=more)

    def parts(self, manual: Manual):
        manual.find(REVIEWS)
        if self.builder_config.name != TWO:
            manual.find(BUSINESSES)
        log = self._reviews(manual)
        if self.builder_config.name == TWO:
            items, self.sizes["item"] = numbered(log["item"])
            return Log(log, length=HISTORY).last_two(items=items, manual=manual)
        return Log(look_up(log, on="item", other=self._businesses(manual)), length=HISTORY).temporal()

    def _reviews(self, manual: Manual) -> pa.Table:
        names = {"review": "review_id", "person": "user_id", "item": "business_id", "stars": "stars", "date": "date"}
        schema = pa.schema([(n, pa.float32() if n == "stars" else pa.string()) for n in names])
        table = whole(manual.json_lines(REVIEWS, schema=schema, rename=names))
        stars = table["stars"].to_numpy()
        table = manual.keep(table, (stars >= 1) & (stars <= 5), field="stars", why="not 1 to 5 stars")
        moment = pc.strptime(table["date"], format="%Y-%m-%d %H:%M:%S", unit="s", error_is_null=True)
        table = table.append_column("moment", moment)
        table = manual.keep(table, pc.is_valid(table["moment"]), field="date", why="no date")
        table = distinct(manual, table, by=("review",))
        liked = (table["stars"].to_numpy() >= LIKED).astype(np.float32)
        person = hash_column(table["person"].combine_chunks()) >> np.uint64(1)  # a number per name
        table = table.append_column("user", pa.array(person.astype(np.int64))).append_column("liked", pa.array(liked))
        table = table.append_column("time", table["moment"].cast(pa.int64()))
        return table.select(["user", "item", "stars", "liked", "time"])

    def _businesses(self, manual: Manual) -> pa.Table:
        schema = pa.schema([("item", pa.string()), ("city", pa.string()), ("categories", pa.string())])
        table = whole(manual.json_lines(BUSINESSES, schema=schema, rename={"item": "business_id"}))
        split = pc.split_pattern(table["categories"], ", ").combine_chunks()
        full = [[] if parts == [""] else parts for parts in split.to_pylist()]
        return table.set_column(2, "categories", pa.array(full, pa.list_(pa.string())))

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        time = Time(name="time", origin=ORIGIN)
        if config == TWO:
            item = Categorical(name="item", rows=rows["item"], role="user")
            history = Sequence(name="history", of=item, length=HISTORY, role="user")
            return Features(all=(history, Label(name="target", type="class"), Group(name="user", encode="hash"), time))

        def category(name: str, role: Role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        item = category("item", "item")
        return Features(
            all=(
                category("user", "user"),
                item,
                category("city", "item"),
                MultiHot(name="categories", of=category("categories", "item"), length=10, role="item"),
                Sequence(name="history", of=item, length=HISTORY, role="user"),
                Label(name="liked"),
                Label(name="stars", type="real"),
                time,
            )
        )
