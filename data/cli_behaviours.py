"""python -m data behaviours LOG.parquet --output CLEAN.parquet --dictionary DICT.json: a log of behaviours, cleaned.

The dictionary is learnt from the log (data/dictionary.py), or read with --known from an earlier one, as for a new day.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.columns import column, is_text
from data.dictionary import Cleaning, Dictionary, Events, fit
from data.errors import UserError
from data.parquet import check_schemas, expand


def add(commands: Any) -> None:
    parser = commands.add_parser("behaviours", help="clean a log of behaviours by a dictionary")
    parser.add_argument("path", help="Parquet files with a row per event")
    parser.add_argument("--output", required=True, help="Parquet file to write: user, time, token, id")
    parser.add_argument("--dictionary", help="JSON file to write: the tokens by id, what stands for them, a report")
    parser.add_argument("--known", help="dictionary to clean by, in place of learning one")
    parser.add_argument("--category", help="column with the token that stands for one that came out of use")
    for name, what in (("user", "who"), ("time", "when, in seconds or as a timestamp"), ("token", "what")):
        parser.add_argument(f"--{name}", default=name, help=f"column that says {what}")
    rules = Cleaning()
    for name in ("least", "most", "busy", "hours", "stale"):
        value = getattr(rules, name)
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"Cleaning.{name}, {value} unless given")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    names = {"user": arguments.user, "time": arguments.time, "token": arguments.token}
    if arguments.category:
        names["category"] = arguments.category
    users, events, category, lost = _read(arguments.path, names)
    if arguments.known:
        found = read_dictionary(Path(arguments.known))
    else:
        rules = Cleaning(**{n: getattr(arguments, n) for n in ("least", "most", "busy", "hours", "stale")})
        found = fit(events, rules=rules, category=category)
    clean = found.clean(events)
    table = pa.table(
        {
            "user": users.take(pa.array(clean.user)),
            "time": pa.array(clean.time),
            "token": pa.array(clean.token.tolist(), pa.string()),
            "id": pa.array(found.ids(clean.token)),
        }
    )
    _write(Path(arguments.output), lambda part: pq.write_table(table, part, compression="zstd"))
    if arguments.dictionary:
        # Machines are numbers of this log's users; a file names people as the log does.
        bots = users.take(pa.array(found.machines)).to_pylist()
        text = json.dumps({"tokens": found.tokens, "names": found.names, "machines": bots, "report": found.report})
        _write(Path(arguments.dictionary), lambda part: part.write_text(text))
    print(
        f"{len(clean.user):,} of {len(events.user):,} events, {len(found.tokens):,} tokens; {lost:,} rows lack a value"
    )
    for name, value in found.report.items():
        print(f"  {name}: {value:.3f}" if isinstance(value, float) else f"  {name}: {value:,}")


def read_dictionary(path: Path) -> Dictionary:
    try:
        told = json.loads(path.read_text())
        return Dictionary(tuple(told["tokens"]), told["names"], np.zeros(0, np.int64), told["report"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no dictionary of behaviours ({error}); write one with --dictionary") from None


def _read(path: str, names: dict[str, str]) -> tuple[pa.Array, Events, dict[str, str] | None, int]:
    """The users by number, the events, the category of each canonical token, and how many rows lack a value."""
    from data.dictionary import canonical

    files = expand(path)
    check_schemas(files, columns=list(names.values()))
    table = pa.concat_tables([pq.read_table(file, columns=list(names.values())) for file in files])
    needed = [names[n] for n in ("user", "time", "token")]
    there = pc.and_(pc.and_(*(pc.is_valid(table[n]) for n in needed[:2])), pc.is_valid(table[needed[2]]))
    kept = table.filter(there).combine_chunks()
    user, time, token = (column(kept, n, file=path) for n in needed)
    if not is_text(token.type):
        raise UserError(f"{path}: column {names['token']!r} is {token.type}; behaviours are strings")
    if pa.types.is_timestamp(time.type):
        time = time.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    if not pa.types.is_integer(time.type):
        raise UserError(f"{path}: column {names['time']!r} is {time.type}; give seconds or timestamps")
    encoded = pc.dictionary_encode(user)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    number = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    events = Events(number, time.to_numpy(zero_copy_only=False), np.array(token.to_pylist(), dtype=np.str_))
    category = None
    if "category" in names:
        pairs = zip(token.to_pylist(), column(kept, names["category"], file=path).to_pylist(), strict=True)
        category = {canonical(t): c for t, c in pairs if c is not None}
    return encoded.dictionary, events, category, table.num_rows - kept.num_rows


def _write(path: Path, write: Any) -> None:
    """The file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    write(part)
    part.replace(path)
