"""Amazon Reviews of 2014, 2018 and 2023, 5-core: who rated what and when, with what they rated before."""

import json
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import TARGET_COLUMNS, Log, distinct, event_columns, numbered, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.errors import UserError
from data.features import Categorical, Features, Group, Label, Sequence, Time

LIKED = 4.0
TWO = "_leave_last_two"
FILES = {"2014": "reviews_*_5.json*", "2018": "*_5.json*", "2023": "*.csv*"}
JSON = {"reviewer": "reviewerID", "asin": "asin", "rating": "overall", "time": "unixReviewTime"}
CSV = {"reviewer": "user_id", "asin": "parent_asin", "rating": "rating", "time": "timestamp"}


class AmazonReviews(Builder):
    """One category in the folder; liked is 4 stars or more. Split by time, or each user's last two by config."""

    BUILDER_CONFIGS = [
        *(Config(name=year, description="ratings, split by time") for year in FILES),
        *(Config(name=year + TWO, description="a sequence per user") for year in FILES),
    ]
    home = (
        "Julian McAuley's Amazon review data pages (2014: jmcauley.ucsd.edu/data/amazon, reviews_<category>_5.json.gz; "
        "2018: nijianmo.github.io/amazon, <category>_5.json.gz; 2023: amazon-reviews-2023.github.io, 5-core csv)"
    )
    citation = (
        "McAuley et al.: Image-based Recommendations on Styles and Substitutes, SIGIR 2015 (2014). Ni, Li, McAuley: "
        "Justifying Recommendations, EMNLP 2019 (2018). Hou et al.: Bridging Language and Items, 2024 (2023)."
    )
    licence = "Research use."

    @property
    def year(self) -> str:
        return self.builder_config.name.removesuffix(TWO)

    @property
    def last_two(self) -> bool:
        return self.builder_config.name.endswith(TWO)

    @property
    def keys(self) -> Keys:
        if self.last_two:
            return Keys(user="user", item="target", time="time", histories={"history": "target"})
        return Keys(user="user", item="item", label="liked", time="time", histories={"history": "item"})

    def stored(self) -> pa.Schema:
        if self.last_two:
            return TARGET_COLUMNS
        more = (("rating", pa.float32()), ("liked", pa.float32()))
        return event_columns(item=pa.string(), more=more)

    def parts(self, manual: Manual):
        table = distinct(manual, whole(self._read(manual)), by=("reviewer", "asin", "time"))
        ids, _ = numbered(table["reviewer"])
        liked = pc.greater_equal(table["rating"], LIKED).cast(pa.float32())
        table = table.append_column("user", pa.array(ids)).append_column("liked", liked)
        log = Log(table.append_column("item", table["asin"]))
        if not self.last_two:
            return log.temporal()
        items, self.sizes["item"] = numbered(table["asin"])
        return log.last_two(items=items, manual=manual)

    def _read(self, manual: Manual) -> Iterator[pa.Table]:
        files = manual.glob(FILES[self.year])
        if self.year != "2023" and len(files) > 1:
            raise UserError(f"{manual.folder}: {len(files)} files {FILES[self.year]}; keep one category a folder")
        kinds = {"reviewer": pa.string(), "asin": pa.string(), "rating": pa.float64(), "time": pa.int64()}
        schema = pa.schema(list(kinds.items()))
        for path in files:
            name = str(path.relative_to(manual.folder))
            if self.year == "2023":
                tables = manual.csv(name, schema=schema, rename=CSV)
            else:
                tables = manual.json_lines(name, schema=schema, rename=JSON, parse=json.loads)
            for table in tables:
                for field in ("reviewer", "asin"):
                    good = pc.not_equal(table[field], "").to_numpy()
                    table = manual.keep(table, good, field=field, why="missing")
                rating = table["rating"].to_numpy()
                table = manual.keep(table, (rating >= 1) & (rating <= 5), field="rating", why="not 1 to 5 stars")
                if self.year == "2023":  # milliseconds
                    time = pa.array(table["time"].to_numpy() // 1000)
                    table = table.set_column(table.column_names.index("time"), "time", time)
                yield manual.keep(table, table["time"].to_numpy() > 0, field="time", why="no time")

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        if config is not None and config.endswith(TWO):
            item = Categorical(name="item", rows=rows["item"], role="item")
            history = Sequence(name="history", of=item, length=50, role="user")
            return Features(all=(history, Label(name="target", type="class"), Group(name="user"), Time(name="time")))
        item = Categorical(name="item", rows=rows["item"], encode="vocabulary", role="item")
        return Features(
            all=(
                Categorical(name="user", rows=rows["user"], encode="vocabulary", role="user"),
                item,
                Sequence(name="history", of=item, length=50, role="user"),
                Time(name="time"),
                Label(name="liked"),
                Label(name="rating", type="real"),
            )
        )
