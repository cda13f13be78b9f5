"""MovieLens: ratings of 100K, 1M and the "latest" releases (25M and 32M have their format), tags, MovieLensLatest_x1.

Each release in its own folder as the owner's archive unpacks it; that folder, or the one above, is the manual folder.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import TARGET_COLUMNS, Log, distinct, event_columns, look_up, numbered, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Group, Label, MultiHot, Role, Sequence, Time

ORIGIN = 1_000_000_000
HISTORY = 50
LIKED = 4.0
X1 = ("user_id", "item_id", "tag_id")
PERSON = ("gender", "age", "occupation")
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
FOLDERS = {"100k": "ml-100k", "1m": "ml-1m", "latest": "ml-latest", "tags": "ml-latest"}
TWO = "_leave_last_two"


class Movielens(Builder):
    """Ratings of films: liked is 4 stars or more. Split by time; each user's last two in the configs that say so."""

    BUILDER_CONFIGS = [
        *(Config(name=name, description="ratings, split by time") for name in ("100k", "1m", "latest")),
        *(Config(name=name + TWO, description="a sequence per user") for name in ("100k", "1m", "latest")),
        Config(name="tags", description="who gave which film which tag, split by time (latest releases)"),
        Config(name="latest_x1", description="tag prediction of the BARS benchmark, split as published"),
    ]
    home = "https://grouplens.org/datasets/movielens/ (MovieLensLatest_x1: the BARS benchmark's data set page)"
    citation = "Harper, Konstan: The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015."
    licence = "Research use; no redistribution without permission, no commercial use (README of each release)."
    md5 = {
        "MovielensLatest_x1/train.csv": "efc8bceeaa0e895d566470fc99f3f271",
        "MovielensLatest_x1/valid.csv": "e1930223a5026e910ed5a48687de8af1",
        "MovielensLatest_x1/test.csv": "54e8c6baff2e059fe067fb9b69e692d0",
    }

    @property
    def release(self) -> str:
        return self.builder_config.name.removesuffix(TWO)

    @property
    def keys(self) -> Keys:
        name = self.builder_config.name
        if name.endswith(TWO):
            return Keys(user="user", item="target", time="time", histories={"history": "target"})
        if name == "latest_x1":
            return Keys(user="user_id", item="item_id", label="label")
        if name == "tags":
            return Keys(user="user", item="item", time="time")
        return Keys(user="user", item="item", label="liked", time="time", histories={"history": "item"})

    def stored(self) -> pa.Schema:
        name = self.builder_config.name
        if name.endswith(TWO):
            return TARGET_COLUMNS
        if name == "latest_x1":
            return pa.schema([("label", pa.float32()), *((field, pa.int64()) for field in X1)])
        genres = ("genres", pa.list_(pa.string()))
        if name == "tags":
            more: tuple = (("tag", pa.string()), genres)
        else:
            person = () if name == "latest" else tuple((field, pa.string()) for field in PERSON)
            more = (("rating", pa.float32()), ("liked", pa.float32()), genres, *person)
        return event_columns(item=pa.int64(), more=more)

    def parts(self, manual: Manual):
        name = self.builder_config.name
        if name == "latest_x1":
            splits = ("train", "valid", "test")
            for split in splits:
                manual.find(*self._places(f"{split}.csv"))
            return {split: self._x1(manual, split) for split in splits}
        log = self._tags(manual) if name == "tags" else self._ratings(manual)
        if name.endswith(TWO):
            items, self.sizes["item"] = numbered(log["item"])
            return Log(log, length=HISTORY).last_two(items=items, manual=manual)
        log = look_up(log, on="item", other=self._films(manual))
        if self.release in ("100k", "1m"):
            log = look_up(log, on="user", other=self._people(manual))
        return Log(log, length=HISTORY).temporal()

    def _places(self, file: str) -> tuple[str, str]:
        folder = FOLDERS.get(self.release, "MovielensLatest_x1")
        return f"{folder}/{file}", file

    def _x1(self, manual: Manual, split: str):
        for table in manual.csv(*self._places(f"{split}.csv"), schema=self.stored()):
            yield manual.binary(table, "label")

    def _ratings(self, manual: Manual) -> pa.Table:
        schema = pa.schema([("user", pa.int64()), ("item", pa.int64()), ("rating", pa.float32()), ("time", pa.int64())])
        match self.release:
            case "100k":
                tables = manual.csv(*self._places("u.data"), schema=schema, delimiter="\t", has_header=False)
            case "1m":
                tables = manual.csv(*self._places("ratings.dat"), schema=schema, delimiter="::", has_header=False)
            case _:
                rename = {"user": "userId", "item": "movieId", "time": "timestamp"}
                tables = manual.csv(*self._places("ratings.csv"), schema=schema, rename=rename)
        table = whole(tables)
        stars = table["rating"].to_numpy()
        table = manual.keep(table, (stars >= 0.5) & (stars <= 5), field="rating", why="not 0.5 to 5 stars")
        table = distinct(manual, table, by=("user", "item"))
        liked = (table["rating"].to_numpy() >= LIKED).astype(np.float32)
        return table.append_column("liked", pa.array(liked))

    def _tags(self, manual: Manual) -> pa.Table:
        schema = pa.schema([("user", pa.int64()), ("item", pa.int64()), ("tag", pa.string()), ("time", pa.int64())])
        rename = {"user": "userId", "item": "movieId", "time": "timestamp"}
        table = whole(manual.csv(*self._places("tags.csv"), schema=schema, rename=rename))
        return manual.keep(table, pc.not_equal(table["tag"], ""), field="tag", why="empty tag")

    def _films(self, manual: Manual) -> pa.Table:
        """Item and genres."""
        if self.release == "100k":
            facts = ("title", "released", "video", "url")
            schema = pa.schema(
                [("item", pa.int64()), *((n, pa.string()) for n in facts), *((g, pa.int64()) for g in GENRES_100K)]
            )
            table = whole(
                manual.csv(
                    *self._places("u.item"),
                    schema=schema,
                    delimiter="|",
                    has_header=False,
                    quote=False,
                    encoding="latin-1",
                )
            )
            flags = np.stack([table[genre].to_numpy() for genre in GENRES_100K], axis=1) > 0
            genres = [[g for g, flag in zip(GENRES_100K, row, strict=True) if flag] for row in flags]
            return pa.table({"item": table["item"], "genres": pa.array(genres, pa.list_(pa.string()))})
        schema = pa.schema([("item", pa.int64()), ("title", pa.string()), ("genres", pa.list_(pa.string()))])
        if self.release == "1m":
            tables = manual.csv(
                *self._places("movies.dat"),
                schema=schema,
                delimiter="::",
                has_header=False,
                quote=False,
                encoding="latin-1",
                separator="|",
            )
        else:
            tables = manual.csv(*self._places("movies.csv"), schema=schema, rename={"item": "movieId"}, separator="|")
        return whole(tables).select(["item", "genres"])

    def _people(self, manual: Manual) -> pa.Table:
        """User, gender, age and occupation; the post code is left where it is."""
        names = ("age", "gender") if self.release == "100k" else ("gender", "age")
        schema = pa.schema([("user", pa.int64()), *((n, pa.string()) for n in (*names, "occupation", "code"))])
        file, delimiter = ("u.user", "|") if self.release == "100k" else ("users.dat", "::")
        tables = manual.csv(*self._places(file), schema=schema, delimiter=delimiter, has_header=False, quote=False)
        return whole(tables).select(["user", *PERSON])

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        name = config or cls.BUILDER_CONFIGS[0].name
        if name.endswith(TWO):
            item = Categorical(name="item", rows=rows["item"], role="user")
            history = Sequence(name="history", of=item, length=HISTORY, role="user")
            target = Label(name="target", type="class")
            return Features(all=(history, target, Group(name="user"), Time(name="time", origin=ORIGIN)))
        if name == "latest_x1":
            roles: dict[str, Role] = {"user_id": "user", "item_id": "item"}
            inputs = (Categorical(name=n, rows=rows[n], encode="vocabulary", role=roles.get(n, "context")) for n in X1)
            return Features(all=(*inputs, Label(name="label")))

        def category(field: str, role: Role) -> Categorical:
            return Categorical(name=field, rows=rows[field], encode="vocabulary", role=role)

        item, genre = category("item", "item"), category("genres", "item")
        shared = (
            category("user", "user"),
            item,
            MultiHot(name="genres", of=genre, length=8, role="item"),
            Sequence(name="history", of=item, length=HISTORY, role="user"),
            Time(name="time", origin=ORIGIN),
        )
        if name == "tags":
            return Features(all=(*shared, category("tag", "context")))
        person = () if name == "latest" else tuple(category(field, "user") for field in PERSON)
        return Features(all=(*shared, *person, Label(name="liked"), Label(name="rating", type="real")))
