"""Qilin: search and feed sessions of a note app, exploded to one row per note shown."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.builders.base import Builder, Config
from data.building.interactions import look_up, whole
from data.building.ledger import Keys
from data.building.read import Manual
from data.errors import UserError
from data.features import Categorical, Dense, Features, Group, Label, Role, Sequence, Text, Time
from data.hashing import mix

ORIGIN = 1_600_000_000
NOTE = ("note_type", "taxonomy1_id", "taxonomy2_id", "taxonomy3_id")
PERSON = ("gender", "platform", "age", "location")
DENSE = tuple(f"dense_feat{n}" for n in range(1, 41))
HISTORY = 20
SCENES = {
    "search": ("search", "search_idx", "search_result_details_with_idx"),
    "recommendation": ("recommendation", "request_idx", "rec_result_details_with_idx"),
}


class Qilin(Builder):
    """A note shown to a user in one request: clicked or not, with query, clicked notes before, note and user facts.

    Test as published; a tenth of the training sessions, by hash of the session, validates. Left out on purpose: like,
    collect, comment, share and page_time of the same impression (they follow the click), and the counters of notes
    (they count the test period too); position is stored, not declared. Assumed: recent_clicked_note_idxs is oldest
    first; each table is `<name>.parquet` or a folder `<name>/*.parquet`.
    """

    BUILDER_CONFIGS = [
        Config(name="search", description="search_train, search_test"),
        Config(name="recommendation", description="recommendation_train, recommendation_test"),
    ]
    home = "https://huggingface.co/datasets/THUIR/Qilin and https://github.com/RED-Search/Qilin"
    citation = (
        "Chen et al.: Qilin: A Multimodal Information Retrieval Dataset with APP-level User Sessions, SIGIR 2025, "
        "arXiv 2503.00501."
    )
    licence = "MIT, says the README of the repository; read the data card for the data."
    keys = Keys(user="user", item="note", label="click", time="time", histories={"history": "note"})
    columns = pa.schema(
        [
            *((name, pa.int64()) for name in ("request", "session", "user", "note", "position", "time")),
            ("click", pa.float32()),
            ("query", pa.string()),
            ("history", pa.list_(pa.int64())),
            ("title", pa.string()),
            *((name, pa.string()) for name in (*NOTE, *PERSON)),
            ("user_vector", pa.list_(pa.float32())),
        ]
    )

    def parts(self, manual: Manual):
        scene, request, details = SCENES[self.builder_config.name]
        for name in (f"{scene}_train", f"{scene}_test", "notes", "user_feat"):
            _place(manual, name)
        notes, people = self._notes(manual), self._people(manual)

        def rows(split: str, held: bool | None) -> Iterator[pa.Table]:
            for table in self._requests(manual, _place(manual, f"{scene}_{split}"), request, details):
                if held is not None:
                    chosen = mix(table["session"].to_numpy()) / 2.0**64 < 0.1
                    table = table.filter(pa.array(chosen == held))
                known = pc.is_in(table["note"], notes["note"].combine_chunks())
                table = manual.keep(table, known, field="note", why="not in notes")
                table = look_up(look_up(table, on="note", other=notes), on="user", other=people)
                if table.num_rows:
                    yield table

        return {"train": rows("train", False), "valid": rows("train", True), "test": rows("test", None)}

    def _requests(self, manual: Manual, place: str, request: str, details: str) -> Iterator[pa.Table]:
        shown = pa.list_(pa.struct([(n, pa.int64()) for n in ("note_idx", "position", "click", "timestamp")]))
        renamed = {"request": request, "session": "session_idx", "user": "user_idx"}
        past = "recent_clicked_note_idxs"
        schema = pa.schema(
            [*((n, pa.int64()) for n in renamed.values()), ("query", pa.string()), (past, pa.list_(pa.int64()))]
            + [(details, shown)]
        )
        for table in manual.parquet(place, schema=schema):
            lists = table[details].combine_chunks()
            row = pc.list_parent_indices(lists)
            flat = lists.flatten()
            out = table.drop_columns([details]).take(row)
            out = out.rename_columns({**{old: new for new, old in renamed.items()}, past: "history"})
            for name, field in (("note", "note_idx"), ("position", "position"), ("time", "timestamp")):
                out = out.append_column(name, pc.fill_null(pc.struct_field(flat, field), 0))
            seconds = out["time"].to_numpy()
            seconds = np.where(seconds > 10**11, seconds // 1000, seconds)
            out = out.set_column(out.column_names.index("time"), "time", pa.array(seconds))
            clicked = pc.greater(pc.fill_null(pc.struct_field(flat, "click"), 0), 0).cast(pa.float32())
            yield out.append_column("click", clicked)

    def _notes(self, manual: Manual) -> pa.Table:
        schema = pa.schema([("note_idx", pa.int64()), ("note_title", pa.string()), *((n, pa.string()) for n in NOTE)])
        table = whole(manual.parquet(_place(manual, "notes"), schema=schema))
        return table.rename_columns({"note_idx": "note", "note_title": "title"})

    def _people(self, manual: Manual) -> pa.Table:
        schema = pa.schema(
            [("user_idx", pa.int64()), *((n, pa.string()) for n in PERSON), *((n, pa.float32()) for n in DENSE)]
        )
        table = whole(manual.parquet(_place(manual, "user_feat"), schema=schema))
        dense = np.nan_to_num(np.stack([table[name].to_numpy() for name in DENSE], axis=1))
        table = table.select(["user_idx", *PERSON]).append_column("user_vector", pa.array(list(dense)))
        return table.rename_columns({"user_idx": "user"})

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        def category(name: str, role: Role) -> Categorical:
            return Categorical(name=name, rows=rows[name], encode="vocabulary", role=role)

        note = category("note", "item")
        words = rows["text.json"]
        return Features(
            all=(
                category("user", "user"),
                note,
                *(category(name, "item") for name in NOTE),
                *(category(name, "user") for name in PERSON),
                Dense(name="user_vector", dim=len(DENSE), role="user"),
                Sequence(name="history", of=note, length=HISTORY, role="user"),
                Text(name="query", tokens=words, length=16, tokenizer="text.json", role="context"),
                Text(name="title", tokens=words, length=32, tokenizer="text.json", role="item"),
                Label(name="click"),
                Group(name="request"),
                Time(name="time", origin=ORIGIN),
            )
        )


def _place(manual: Manual, name: str) -> str:
    """The glob that finds a table."""
    for pattern in (f"{name}.parquet", f"{name}/*.parquet"):
        if any(manual.folder.glob(pattern)):
            return pattern
    raise UserError(f"{manual.folder}: no {name}.parquet and no Parquet file in {name}; get it from {manual.home}")
