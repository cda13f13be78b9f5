"""MerRec: half a year of events on Mercari, a market between people, where most items are sold once."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder
from data.building.ledger import Keys
from data.building.parts import between
from data.building.read import Manual
from data.errors import UserError
from data.features import Categorical, Features, Group, Label, Numeric, Time

IDS = (
    "product_id", "c0_id", "c1_id", "c2_id", "brand_id", "item_condition_id", "size_id", "shipper_id", "color",
)  # fmt: skip
EVENTS = ("item_view", "item_like", "item_add_to_cart_tap", "offer_make", "buy_start", "buy_comp")
LARGE = {"user_id": 1 << 20, "item_id": 1 << 20, "product_id": 1 << 18}
CLOCK = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"


class Merrec(Builder):
    """One row per event; engaged is anything beyond a view. The first 80 % of the time span train, then 10 % and 10 %.

    Reads every Parquet shard below the manual folder (the release has a folder a month).
    """

    home = "Mercari's MerRec page (data set mercari-us/merrec, repository mercari/mercari-ml-merrec-pub-us)"
    citation = "Li et al.: MerRec: A Large-scale Multipurpose Mercari Dataset for C2C Recommendation Systems, KDD 2025."
    licence = "CC BY-NC 4.0."
    columns = pa.schema(
        [
            ("engaged", pa.float32()),
            ("bought", pa.float32()),
            ("time", pa.int64()),
            *((name, pa.string()) for name in ("event_id", "user_id", "session_id", "sequence_id", "item_id", *IDS)),
            ("price", pa.float32()),
            ("name", pa.string()),
        ]
    )
    keys = Keys(user="user_id", item="item_id", label="engaged", time="time")

    def parts(self, manual: Manual):
        ends = [(int(t.min()), int(t.max())) for t in (r["time"].to_numpy() for r in self._rows(manual)) if len(t)]
        if not ends:
            raise UserError(f"{manual.folder}: no events; get them from {self.home}")
        first, last = min(low for low, _ in ends), max(high for _, high in ends) + 1
        marks = [first + (last - first) * part // 10 for part in (0, 8, 9)] + [last]
        return {
            split: between(self._rows(manual), "time", low=marks[i], high=marks[i + 1])
            for i, split in enumerate(("train", "valid", "test"))
        }

    def _rows(self, manual: Manual) -> Iterator[pa.Table]:
        texts = ("stime", "event_id", "user_id", "session_id", "sequence_id", "item_id", *IDS, "name")
        schema = pa.schema([*((name, pa.string()) for name in texts), ("price", pa.float32())])
        for table in manual.parquet("**/*.parquet", schema=schema):
            good = pc.match_substring_regex(table["stime"], CLOCK).to_numpy()
            table = manual.keep(table, good, field="stime", why="no time")
            known = pc.is_in(table["event_id"], value_set=pa.array(EVENTS)).to_numpy()
            table = manual.keep(table, known, field="event_id", why="none of the six events")
            for name in ("user_id", "item_id"):
                table = manual.keep(table, pc.not_equal(table[name], "").to_numpy(), field=name, why="missing")
            clock = pc.replace_substring(pc.utf8_slice_codeunits(table["stime"], 0, 19), "T", " ")
            time = pc.strptime(clock, format="%Y-%m-%d %H:%M:%S", unit="s").cast(pa.int64())
            event = table["event_id"]
            table = table.append_column("time", time)
            table = table.append_column("engaged", pc.not_equal(event, "item_view").cast(pa.float32()))
            yield table.append_column("bought", pc.equal(event, "buy_comp").cast(pa.float32()))

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str, role) -> Categorical:
            if name in LARGE:
                return Categorical(name=name, rows=LARGE[name], encode="hash", role=role)
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        return Features(
            all=(
                field("user_id", "user"),
                field("item_id", "item"),
                *(field(name, "item") for name in IDS),
                Numeric(name="price", transform="log1p", default=0.0, role="item"),
                Group(name="session_id", encode="hash"),
                Time(name="time", origin=1_672_531_200),
                Label(name="engaged"),
                Label(name="bought"),
            )
        )
