"""MIND: what Microsoft News showed to whom, and which of it was clicked."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import look_up, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.columns import lists, split
from data.features import Categorical, Features, Group, Label, Sequence, Text, Time

LENGTH = 50
WORDS = "words.json"
CLOCK = r"^\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M$"
SHOWN = r"^\S+-[01]( \S+-[01])*$"


class Mind(Builder):
    """One row per article shown. Five weeks train; the dev part of the release, a day later, validates."""

    BUILDER_CONFIGS = [
        Config(name="small", description="MINDsmall_train and MINDsmall_dev"),
        Config(name="large", description="MINDlarge_train and MINDlarge_dev; the test part has no labels"),
    ]
    home = "Microsoft's MIND page (msnews.github.io): folders MIND<size>_train and MIND<size>_dev as unpacked"
    citation = "Wu et al.: MIND: A Large-scale Dataset for News Recommendation, ACL 2020."
    licence = "Microsoft Research License Terms: research only."
    columns = pa.schema(
        [
            ("click", pa.float32()),
            ("impression", pa.int64()),
            ("time", pa.int64()),
            *((name, pa.string()) for name in ("user", "news", "category", "subcategory", "title")),
            ("history", pa.list_(pa.string())),
        ]
    )
    keys = Keys(user="user", item="news", label="click", time="time", histories={"history": "news"})

    def parts(self, manual: Manual):
        size = self.builder_config.name
        return {name: self._rows(manual, f"MIND{size}_{part}") for name, part in (("train", "train"), ("valid", "dev"))}

    def _rows(self, manual: Manual, folder: str) -> Iterator[pa.Table]:
        news = self._news(manual, f"{folder}/news.tsv")
        texts = ("user", "stamp", "past", "shown")
        schema = pa.schema([("impression", pa.int64()), *((name, pa.string()) for name in texts)])

        for table in manual.csv(
            f"{folder}/behaviors.tsv", schema=schema, delimiter="\t", has_header=False, quote=False
        ):
            good = pc.match_substring_regex(table["stamp"], CLOCK).to_numpy()
            table = manual.keep(table, good, field="stamp", why="no time")
            good = pc.match_substring_regex(table["shown"], SHOWN).to_numpy()
            table = manual.keep(table, good, field="shown", why="not news-0 or news-1")
            if table.num_rows:
                yield look_up(_articles(table), on="news", other=news)

    def _news(self, manual: Manual, file: str) -> pa.Table:
        names = ("news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
        schema = pa.schema([(name, pa.string()) for name in names])
        tables = manual.csv(file, schema=schema, delimiter="\t", has_header=False, quote=False, key="news")
        return whole(tables).select(["news", "category", "subcategory", "title"])

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def field(name: str, role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        news = field("news", "item")
        return Features(
            all=(
                field("user", "user"),
                news,
                field("category", "item"),
                field("subcategory", "item"),
                Text(name="title", tokens=rows[WORDS], length=32, tokenizer=WORDS, role="item"),
                Sequence(name="history", of=news, length=LENGTH, role="user"),
                Group(name="impression"),
                Time(name="time", origin=1_570_000_000),
                Label(name="click"),
            )
        )


def _articles(table: pa.Table) -> pa.Table:
    """One row per article of an impression; the newest LENGTH of the history."""
    shown = split(table["shown"].combine_chunks(), " ")
    row = pa.array(np.repeat(np.arange(table.num_rows), lists(shown).lengths))
    flat = shown.flatten()
    past = split(table["past"].combine_chunks(), " ")
    at, held, lengths = lists(past).newest(LENGTH)
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    newest = pa.ListArray.from_arrays(offsets, lists(past).values.take(pa.array(at[held])))
    clock = pc.strptime(table["stamp"], format="%m/%d/%Y %I:%M:%S %p", unit="s").cast(pa.int64())
    table = table.append_column("history", newest).append_column("time", clock).take(row)
    table = table.append_column("news", pc.utf8_slice_codeunits(flat, 0, -2))
    return table.append_column("click", pc.equal(pc.utf8_slice_codeunits(flat, -1), "1").cast(pa.float32()))
