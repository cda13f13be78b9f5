"""iPinYou's real-time bidding logs: impressions with clicks, bids with prices, and the forms others made of them."""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.parts import between
from data.building.read import Manual
from data.columns import split
from data.errors import UserError
from data.features import Categorical, Features, Label, Numeric, Role, Sequence, Time

LIBFM = (
    "weekday", "hour", "useragent", "ip", "region", "city", "adexchange", "domain",
    "slotid", "slotwidth", "slotheight", "slotvisibility", "slotformat", "creative", "advertiser", "slotprice",
)  # fmt: skip
SHARED = (
    "user_agent", "ip", "region", "city", "exchange", "domain", "url", "anonymous_url", "slot", "width", "height",
    "visibility", "format", "floor_price", "creative",
)  # fmt: skip
IMPRESSION = (
    "bid_id", "stamp", "log_type", "user", *SHARED, "bidding_price", "paying_price", "key_page", "advertiser", "tags",
)  # fmt: skip
BID = ("bid_id", "stamp", "user", *SHARED, "bidding_price", "advertiser", "tags")
NUMBERS = ("floor_price", "bidding_price", "paying_price")
LARGE = {"user": 1 << 20, "ip": 1 << 20, "domain": 1 << 18, "slot": 1 << 18}
FIELDS = (
    "user", "user_agent", "ip", "region", "city", "exchange", "domain", "slot", "width", "height", "visibility",
    "format", "creative", "advertiser", "hour", "weekday",
)  # fmt: skip
DAY = 86_400


class Ipinyou(Builder):
    """Four views: impressions joined with clicks, bids with wins, one-hot fields, and a campaign's auctions."""

    BUILDER_CONFIGS = [
        Config(name="impressions", description="imp.* and clk.* logs, split by days: last tests, the one before valid"),
        Config(name="bids", description="bid.* logs, those that imp.* shows as won with the price paid; split by days"),
        Config(name="libfm", description="train.fm.txt and test.fm.txt: label and 16 one-hot fields a row"),
        Config(name="auctions", description="test.theta.txt: click, winning price and predicted click rate"),
    ]
    home = "the iPinYou RTB data set page of University College London (contest.ipinyou.com); other forms: its papers"
    citation = (
        "Liao, Peng, Liu, Shen: iPinYou Global RTB Bidding Algorithm Competition Dataset, ADKDD 2014. "
        "Zhang et al.: Real-Time Bidding Benchmarking with iPinYou, 2014. Auctions: Cai et al., WSDM 2017."
    )
    licence = "Research use."
    columns = pa.schema([])

    @property
    def keys(self) -> Keys:
        return {
            "impressions": Keys(user="user", item="creative", label="click", time="time"),
            "bids": Keys(user="user", item="creative", label="won", time="time"),
            "libfm": Keys(user="ip", item="creative", label="click"),
            "auctions": Keys(label="click"),
        }[self.builder_config.name]

    def stored(self) -> pa.Schema:
        name = self.builder_config.name
        click = ("click", pa.float32())
        if name == "libfm":
            return pa.schema([click, *((field, pa.int64()) for field in LIBFM)])
        if name == "auctions":
            return pa.schema([click, ("winning_price", pa.float32()), ("ctr", pa.float32())])
        clock = [("time", pa.int64()), ("hour", pa.int64()), ("weekday", pa.int64())]
        texts = [(n, pa.string()) for n in ("user", *SHARED, "advertiser") if n not in NUMBERS]
        tags = ("tags", pa.list_(pa.string()))
        if name == "bids":
            prices = [(n, pa.float32()) for n in ("floor_price", "bidding_price", "paying_price")]
            return pa.schema([("won", pa.float32()), *prices, *clock, *texts, tags])
        return pa.schema([click, *((n, pa.float32()) for n in NUMBERS), *clock, *texts, tags])

    def parts(self, manual: Manual):
        name = self.builder_config.name
        if name == "libfm":
            return {part: self._libfm(manual, f"{part}.fm.txt") for part in ("train", "test")}
        if name == "auctions":
            return {"test": self._auctions(manual)}
        files = manual.glob("bid.*" if name == "bids" else "imp.*")
        days = sorted({file.name.split(".")[1][:8] for file in files})
        if len(days) < 3:
            raise UserError(f"{manual.folder}: logs of {len(days)} days; a split by days needs 3 or more")
        starts = [int(np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}", "s").astype(np.int64)) for d in days]
        marks = {"train": (0, starts[-2]), "valid": (starts[-2], starts[-1]), "test": (starts[-1], 1 << 40)}
        clicks = self._ids(manual, "clk.*", IMPRESSION) if name == "impressions" else None
        paid = self._paid(manual) if name == "bids" else None
        names, pattern = (BID, "bid.*") if name == "bids" else (IMPRESSION, "imp.*")
        return {
            part: between(self._log(manual, names, pattern, clicks, paid), "time", low=low, high=high)
            for part, (low, high) in marks.items()
        }

    # The raw logs ----------------------------------------------------------------------------------------------

    def _raw(self, manual: Manual, pattern: str, names: tuple[str, ...]) -> Iterator[pa.Table]:
        schema = pa.schema([(n, pa.float32() if n in NUMBERS else pa.string()) for n in names])
        for path in manual.glob(pattern):
            file = str(path.relative_to(manual.folder))
            yield from manual.csv(file, schema=schema, delimiter="\t", has_header=False, quote=False)

    def _ids(self, manual: Manual, pattern: str, names: tuple[str, ...]) -> pa.Array:
        found = [table["bid_id"] for table in self._raw(manual, pattern, names)]
        return pa.chunked_array([chunk for column in found for chunk in column.chunks]).combine_chunks().unique()

    def _paid(self, manual: Manual) -> pa.Table:
        """Bid id and price of what was won: the first impression of a bid counts."""
        tables = [t.select(["bid_id", "paying_price"]) for t in self._raw(manual, "imp.*", IMPRESSION)]
        return pa.concat_tables(tables).combine_chunks()

    def _log(self, manual: Manual, names: tuple[str, ...], pattern: str, clicks, paid) -> Iterator[pa.Table]:
        for table in self._raw(manual, pattern, names):
            stamp = table["stamp"].combine_chunks()
            good = pc.match_substring_regex(stamp, r"^20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])\d{7}$")
            table = manual.keep(table, good.to_numpy(zero_copy_only=False), field="stamp", why="no yyyyMMddHHmmssSSS")
            time = _seconds(table["stamp"].combine_chunks())
            if clicks is not None:
                target = pc.is_in(table["bid_id"], value_set=clicks).cast(pa.float32())
                table = table.append_column("click", target)
            if paid is not None:
                at = pc.index_in(table["bid_id"], value_set=paid["bid_id"].combine_chunks())
                price = paid["paying_price"].combine_chunks().take(at.combine_chunks())
                table = table.append_column("won", pc.is_valid(price).cast(pa.float32()))
                table = table.append_column("paying_price", pc.fill_null(price, float("nan")))
            tags = split(pc.if_else(pc.equal(table["tags"], "null"), "", table["tags"]).combine_chunks(), ",")
            table = table.set_column(table.column_names.index("tags"), "tags", tags)
            added = {"time": time, "hour": time // 3600 % 24, "weekday": (time // DAY + 3) % 7}
            for name, values in added.items():
                table = table.append_column(name, pa.array(values, pa.int64()))
            yield table

    # What others made of them ----------------------------------------------------------------------------------

    def _libfm(self, manual: Manual, name: str) -> Iterator[pa.Table]:
        schema = pa.schema([("click", pa.float32()), *((field, pa.string()) for field in LIBFM)])
        for table in manual.csv(name, schema=schema, delimiter=" ", has_header=False, quote=False):
            table = manual.binary(table, "click")
            for field in LIBFM:
                good = pc.match_substring_regex(table[field], r"^\d{1,9}:1$").to_numpy()
                table = manual.keep(table, good, field=field, why="not index:1")
            for at, field in enumerate(table.column_names):
                if field in LIBFM:
                    index = pc.utf8_slice_codeunits(table[field], 0, -2).cast(pa.int64())
                    table = table.set_column(at, field, index)
            yield table

    def _auctions(self, manual: Manual) -> Iterator[pa.Table]:
        if manual.has("info.json"):
            info = json.loads(manual.find("info.json").read_text())
            manual.notes.append("training campaign: " + ", ".join(f"{k} {v}" for k, v in info.items() if _plain(v)))
        schema = pa.schema([("click", pa.float32()), ("winning_price", pa.float32()), ("ctr", pa.float32())])
        for table in manual.csv("test.theta.txt", schema=schema, delimiter=" ", has_header=False, quote=False):
            table = manual.binary(table, "click")
            rate = table["ctr"].to_numpy()
            table = manual.keep(table, (rate >= 0) & (rate <= 1), field="ctr", why="no probability")
            yield manual.keep(table, table["winning_price"].to_numpy() >= 0, field="winning_price", why="no price")

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        if config == "auctions":
            return Features(all=(Numeric(name="winning_price"), Numeric(name="ctr"), Label(name="click")))
        if config == "libfm":
            inputs = (Categorical(name=name, rows=rows[name], encode="vocabulary") for name in LIBFM)
            return Features(all=(*inputs, Label(name="click")))

        def field(name: str) -> Categorical:
            role: Role = "user" if name in ("user", "user_agent", "ip") else "item" if name == "creative" else "context"
            if name in LARGE:
                return Categorical(name=name, rows=LARGE[name], encode="hash", role=role)
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        tag = Categorical(name="tag", rows=rows["tag"], encode="vocabulary")
        return Features(
            all=(
                *map(field, FIELDS),
                Sequence(name="tags", of=tag, length=64, role="user"),
                Numeric(name="floor_price", transform="log1p", default=0.0),
                Time(name="time", origin=1_356_998_400),
                Label(name="won" if config == "bids" else "click"),
            )
        )


def _plain(value) -> bool:
    return isinstance(value, int | float | str)


def _seconds(stamps: pa.Array) -> np.ndarray:
    """yyyyMMddHHmmssSSS as seconds of the log's own clock."""
    parts = pc.strptime(pc.utf8_slice_codeunits(stamps, 0, 14), format="%Y%m%d%H%M%S", unit="s")
    return parts.cast(pa.int64()).to_numpy(zero_copy_only=False)
