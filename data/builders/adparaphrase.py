"""AdParaphrase v1 and v2: pairs of Japanese ad texts of one meaning, and which one judges preferred."""

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.interactions import whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import Categorical, Features, Label, Text, Weight

VOTES = ("preference_ad1", "preference_ad2", "preference_skip")
SOURCES = ("source_ad1", "source_ad2")
SHARES = (("test", 0.1), ("valid", 0.2), ("train", 1.0))


class Adparaphrase(Builder):
    """Pairs with votes: label is whether more judges preferred ad1, weight the share of votes that decided.

    The release has no split (v2 triplets apart): all pairs that share their first text are in one part, by the hash of
    that text, since one ad was rewritten several times. Pairs without a decision are left out and counted.
    """

    BUILDER_CONFIGS = [
        Config(name="v2", description="adparaphrase_v2_main.csv, 22,337 pairs"),
        Config(name="v1", description="adparaphrase.csv, 1,238 pairs"),
        Config(name="v2_triplets", description="adparaphrase_v2_pt.csv: an ad and two rewrites, split as published"),
    ]
    home = "https://github.com/CyberAgentAILab/AdParaphrase and /AdParaphrase-v2.0 (folder data)"
    citation = (
        "Murakami, Zhang, Kamigaito, Takamura, Okumura: AdParaphrase, Findings of NAACL 2025; "
        "AdParaphrase v2.0, Findings of ACL 2025."
    )
    licence = "CC BY-NC-SA 4.0."
    keys = Keys(label="label")

    @property
    def triplets(self) -> bool:
        return self.builder_config.name == "v2_triplets"

    def stored(self) -> pa.Schema:
        texts = ("ad1", "ad2", *SOURCES, *(("input",) if self.triplets else ()))
        votes = ((name, pa.int64()) for name in VOTES)
        return pa.schema(
            [("id", pa.int64()), *((n, pa.string()) for n in texts), *votes]
            + [("label", pa.float32()), ("weight", pa.float32())]
        )

    def parts(self, manual: Manual):
        table = self._decided(manual, self._read(manual))
        if self.triplets:
            part = np.array(table["split"].to_pylist())
        else:
            part = np.array([_part(text) for text in table["ad1"].to_pylist()])
        return {split: [table.filter(pa.array(part == split))] for split in ("train", "valid", "test")}

    def _read(self, manual: Manual) -> pa.Table:
        counts = {name: f"count.{name}" for name in VOTES}
        file = {"v1": "adparaphrase.csv", "v2": "adparaphrase_v2_main.csv"}.get(
            self.builder_config.name, "adparaphrase_v2_pt.csv"
        )
        rename = {"id": "index" if self.builder_config.name == "v1" else "id", **counts}
        texts: tuple[str, ...] = ("ad1", "ad2", *SOURCES)
        if self.triplets:
            rename |= {"input": "input_ad", "ad1": "generated_ad1", "ad2": "generated_ad2"}
            rename |= {"source_ad1": "model_ad1", "source_ad2": "model_ad2"}
            texts = (*texts, "input", "split")
        numbers = (("id", pa.int64()), *((name, pa.int64()) for name in VOTES))
        schema = pa.schema([*numbers, *((name, pa.string()) for name in texts)])
        places = (file, f"data/{file}")
        return whole(manual.csv(*places, schema=schema, rename=rename, newlines=True, key="id"))

    def _decided(self, manual: Manual, table: pa.Table) -> pa.Table:
        for name in ("ad1", "ad2"):
            table = manual.keep(table, np.array(table[name].to_pylist()) != "", field=name, why="empty text")
        if self.triplets:
            known = np.isin(table["split"].to_pylist(), ("train", "valid", "test"))
            table = manual.keep(table, known, field="split", why="neither train, valid nor test")
        first, second, skipped = (table[name].to_numpy() for name in VOTES)
        decided = first != second
        manual.notes.append(
            f"{(~decided).sum()} of {len(decided)} pairs left out: no votes (not judged paraphrases) or a draw"
        )
        total = np.maximum(first + second + skipped, 1)
        table = table.append_column("label", pa.array((first > second).astype(np.float32)))
        table = table.append_column("weight", pa.array((np.abs(first - second) / total).astype(np.float32)))
        return table.filter(pa.array(decided))

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        texts = ("ad1", "ad2", "input") if config == "v2_triplets" else ("ad1", "ad2")
        inputs = tuple(Text(name=n, tokens=rows["ad.json"], length=32, tokenizer="ad.json", role="item") for n in texts)
        sources = tuple(Categorical(name=n, rows=rows["source"], encode="vocabulary", share="source") for n in SOURCES)
        return Features(all=(*inputs, *sources, Label(name="label"), Weight(name="weight")))


def _part(text: str) -> str:
    drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2**64
    return next(name for name, share in SHARES if drawn < share)
