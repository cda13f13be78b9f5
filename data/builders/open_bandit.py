"""Open Bandit: fashion items shown by two logging policies, with the probability of each choice."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.read import Manual
from data.errors import UserError
from data.features import Categorical, Dense, Features, Label, Numeric, Time, Truth

ITEMS = {"all": 80, "men": 34, "women": 46}
USER = tuple(f"user_feature_{i}" for i in range(4))
ITEM = tuple(f"item_feature_{i}" for i in range(1, 4))
POLICIES = ("random", "bts")
START = 1_574_553_600
"""2019-11-24, the first day of the log."""


class OpenBandit(Builder):
    """One split per logging policy (uniform random, Bernoulli Thompson sampling); its logs judge, none trains alone."""

    BUILDER_CONFIGS = [Config(name=name, description=f"the campaign {name}") for name in ("men", "women", "all")]
    home = "ZOZO Research's Open Bandit Data page (research.zozo.com/data.html): random/ and bts/, a folder a campaign"
    citation = "Saito, Aihara, Matsutani, Narita: Open Bandit Dataset and Pipeline, NeurIPS Datasets 2021."
    licence = "CC BY 4.0."
    learn_from = POLICIES
    keys = Keys(user=None, item="item_id", label="click", time="time")

    def stored(self) -> pa.Schema:
        items = ITEMS[self.builder_config.name]
        return pa.schema(
            [
                ("click", pa.float32()),
                ("propensity", pa.float32()),
                ("time", pa.int64()),
                ("item_id", pa.int64()),
                ("position", pa.int64()),
                *((name, pa.string()) for name in (*USER, *ITEM)),
                ("item_feature_0", pa.float32()),
                ("affinity", pa.list_(pa.float32(), items)),
            ]
        )

    def parts(self, manual: Manual):
        return {policy: self._rows(manual, policy, self.builder_config.name) for policy in POLICIES}

    def _rows(self, manual: Manual, policy: str, campaign: str) -> Iterator[pa.Table]:
        items = ITEMS[campaign]
        about = self._items(manual, f"{policy}/{campaign}/item_context.csv")
        scores = tuple(f"user-item_affinity_{i}" for i in range(items))
        schema = pa.schema(
            [
                ("timestamp", pa.string()),
                *((name, pa.int64()) for name in ("item_id", "position")),
                ("click", pa.float32()),
                ("propensity", pa.float32()),
                *((name, pa.string()) for name in USER),
                *((name, pa.float32()) for name in scores),
            ]
        )
        file = f"{policy}/{campaign}/{campaign}.csv"
        for table in manual.csv(file, schema=schema, rename={"propensity": "propensity_score"}):
            table = manual.binary(table, "click")
            share = table["propensity"].to_numpy()
            table = manual.keep(table, (share > 0) & (share <= 1), field="propensity", why="no probability")
            known = pc.is_in(table["item_id"], value_set=about["item_id"].combine_chunks()).to_numpy()
            table = manual.keep(table, known, field="item_id", why="not in item_context.csv")
            good = pc.match_substring_regex(table["timestamp"], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").to_numpy()
            table = manual.keep(table, good, field="timestamp", why="no time")
            stamp = pc.strptime(
                pc.utf8_slice_codeunits(table["timestamp"], 0, 19), format="%Y-%m-%d %H:%M:%S", unit="s"
            )
            affinity = np.stack([table[name].to_numpy() for name in scores], axis=1)
            at = pc.index_in(table["item_id"], value_set=about["item_id"].combine_chunks())
            for name in ("item_feature_0", *ITEM):
                table = table.append_column(name, about[name].take(at))
            table = table.append_column("time", stamp.cast(pa.int64()))
            flat = pa.array(affinity.reshape(-1), pa.float32())
            yield table.append_column("affinity", pa.FixedSizeListArray.from_arrays(flat, items))

    def _items(self, manual: Manual, file: str) -> pa.Table:
        schema = pa.schema(
            [("item_id", pa.int64()), ("item_feature_0", pa.float32()), *((name, pa.string()) for name in ITEM)]
        )
        tables = list(manual.csv(file, schema=schema, key="item_id"))
        if not tables:
            raise UserError(f"{manual.folder / file}: no items")
        return pa.concat_tables(tables).combine_chunks()

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str, role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        return Features(
            all=(
                field("item_id", "item"),
                field("position", "context"),
                *(field(name, "user") for name in USER),
                *(field(name, "item") for name in ITEM),
                Numeric(name="item_feature_0", role="item", default=0.0),
                Dense(name="affinity", dim=ITEMS[config or "men"], role="user"),
                Truth(name="propensity"),
                Time(name="time", origin=START),
                Label(name="click"),
            )
        )
