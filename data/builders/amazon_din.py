"""The DIN protocol on Amazon's reviews: candidate item, past items and their categories, one negative a positive."""

import ast
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import distinct, numbered, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.errors import UserError
from data.features import FIRST, Categorical, Features, Label, Sequence

PAST = pa.list_(pa.int64())
SPLITS = {
    "x1": ("train", "test"),
    "with_valid": ("train", "valid", "test"),
    "without_test": ("train", "valid"),
}
REVIEWS = "from_reviews"
SEED = 2018
LENGTH = 100
CHUNK = 1 << 15


class AmazonDin(Builder):
    """Rows of `label,user_id,item_id,cate_id,item_history,cate_history`, histories oldest first and split by ^."""

    BUILDER_CONFIGS = [
        Config(name="x1", description="train and test, as AmazonElectronics_x1"),
        Config(name="with_valid", description="train, valid and test"),
        Config(name="without_test", description="train and valid, where the test part is kept back"),
        Config(name=REVIEWS, description="the protocol applied to reviews_*_5.json and meta_*.json of 2014"),
    ]
    home = (
        "the BARS benchmark's AmazonElectronics_x1 page; for from_reviews, Julian McAuley's Amazon product data page "
        "of 2014 (jmcauley.ucsd.edu/data/amazon)"
    )
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
        if self.builder_config.name == REVIEWS:
            return _Protocol(manual).splits()
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
                Sequence(name="item_history", of=item, length=LENGTH, role="user"),
                Sequence(name="cate_history", of=category, length=LENGTH, role="user"),
                Label(name="label"),
            )
        )


class _Protocol:
    """Each user's items in time: from the second on, a row with the past and a row with a uniform negative.

    The last item tests and the one before validates. Ids follow hashes, so they tell nothing.
    """

    def __init__(self, manual: Manual):
        names = [
            str(f.relative_to(manual.folder)) for p in ("reviews_*_5.json*", "meta_*.json*") for f in manual.glob(p)
        ]
        if len(names) != 2:
            raise UserError(f"{manual.folder}: one reviews_*_5.json and one meta_*.json are due, found {names}")
        schema = pa.schema([("reviewerID", pa.string()), ("asin", pa.string()), ("unixReviewTime", pa.int64())])
        table = whole(self._named(manual, manual.json_lines(names[0], schema=schema)))
        table = distinct(manual, table, by=("reviewerID", "asin", "unixReviewTime"))
        users, _ = numbered(table["reviewerID"])
        items, rows = numbered(table["asin"])
        order = np.lexsort((np.arange(len(users)), table["unixReviewTime"].to_numpy(), users))
        self.user, self.item, self.rows = users[order], items[order], rows
        self.first = np.searchsorted(self.user, self.user, side="left")
        self.last = np.searchsorted(self.user, self.user, side="right")
        self.category = self._categories(manual, names[1], table["asin"], items)

    def splits(self) -> dict[str, Iterator[pa.Table]]:
        left = self.last - 1 - np.arange(len(self.user))
        started = np.arange(len(self.user)) > self.first
        rng = np.random.default_rng(SEED)
        chosen = {
            name: np.flatnonzero(started & part)
            for name, part in zip(("train", "valid", "test"), (left > 1, left == 1, left == 0), strict=True)
        }
        return {name: self._rows(at, self._negatives(at, rng)) for name, at in chosen.items()}

    def _rows(self, at: np.ndarray, negative: np.ndarray) -> Iterator[pa.Table]:
        for start in range(0, len(at), CHUNK):
            place = np.repeat(at[start : start + CHUNK], 2)
            positive = np.arange(len(place)) % 2 == 0
            item = np.where(positive, self.item[place], np.repeat(negative[start : start + CHUNK], 2))
            lengths = np.minimum(place - self.first[place], LENGTH)
            offsets = np.cumsum([0, *lengths])
            past = self.item[np.repeat(place - lengths - offsets[:-1], lengths) + np.arange(offsets[-1])]
            ends = pa.array(offsets, pa.int32())
            yield pa.table(
                {
                    "label": pa.array(positive.astype(np.float32)),
                    "user_id": self.user[place],
                    "item_id": item,
                    "cate_id": self.category[item],
                    "item_history": pa.ListArray.from_arrays(ends, pa.array(past)),
                    "cate_history": pa.ListArray.from_arrays(ends, pa.array(self.category[past])),
                }
            )

    def _negatives(self, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Uniform over the items that the user never met; who met all keeps the last draw."""
        known = np.unique(self.user * self.rows + self.item)
        drawn = rng.integers(FIRST, self.rows, len(at))
        for _ in range(100):
            again = np.flatnonzero(np.isin(self.user[at] * self.rows + drawn, known))
            if not len(again):
                break
            drawn[again] = rng.integers(FIRST, self.rows, len(again))
        return drawn

    def _categories(self, manual: Manual, name: str, asin: pa.ChunkedArray, items: np.ndarray) -> np.ndarray:
        """The category of each item id: the finest of its last path."""
        paths = pa.list_(pa.list_(pa.string()))
        schema = pa.schema([("asin", pa.string()), ("categories", paths)])
        found: dict[str, str] = {}
        for table in manual.json_lines(name, schema=schema, parse=ast.literal_eval):
            for key, value in zip(table["asin"].to_pylist(), table["categories"].to_pylist(), strict=True):
                found[key] = value[-1][-1] if value and value[-1] else ""
        each, at = np.unique(items, return_index=True)
        names = [found.get(key, "") for key in asin.take(pa.array(at)).to_pylist()]
        ids, _ = numbered(pa.chunked_array([pa.array(names, pa.string())]))
        category = np.zeros(self.rows, np.int64)
        category[each] = ids
        return category

    @staticmethod
    def _named(manual: Manual, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            for field in ("reviewerID", "asin"):
                table = manual.keep(table, pc.not_equal(table[field], "").to_numpy(), field=field, why="missing")
            yield table
