"""The files of a public release, as its owner packs them: plain or gzip, each malformed row counted and named."""

import hashlib
import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.building.parse import fits, json_object, number_lists
from data.columns import is_list, missing_column, split
from data.csv import Lines, cast, header, tables, unpacked
from data.errors import UserError
from data.rejects import Rejects

ROW = "#row"
"""Column of every table read: the number of the row in its file, so that later checks can name it."""
FILE = b"file"
PACKED = ("", ".gz", ".bz2")
CHUNK = 1 << 16
EARLY = 1_000_000
"""Rows after which a file that is mostly malformed stops the build before its end."""

log = logging.getLogger("adloom.data")


class Manual:
    """The folder into which the user put the files of the release."""

    def __init__(self, folder: Path, *, home: str, max_rejects: float, md5: Mapping[str, str]):
        self.folder, self.home, self.max_rejects, self.md5 = Path(folder), home, max_rejects, md5
        self.rejects = Rejects()
        self.hint = ""
        """Ends the message on a missing file."""
        self.notes: list[str] = []
        self._rows: dict[str, int] = {}
        self.used: dict[str, int] = {}
        """Bytes of each file read."""

    @property
    def rows(self) -> int:
        """Rows read, those set aside included; a file read twice counts once."""
        return sum(self._rows.values())

    def count(self, path: Path, rows: int) -> None:
        """`rows` have been read of this file so far."""
        self._rows[str(path)] = max(rows, self._rows.get(str(path), 0))

    def find(self, *names: str) -> Path:
        """The first of the `names` that exists, plain or packed."""
        for name in names:
            for path in (self.folder / f"{name}{suffix}" for suffix in PACKED):
                if path.is_file():
                    if str(path.relative_to(self.folder)) not in self.used:
                        self.used[str(path.relative_to(self.folder))] = path.stat().st_size
                        self._compare(path, self.md5.get(name))
                    return path
        known = f" (md5 {self.md5[names[0]]})" if names[0] in self.md5 else ""
        wanted = self.folder / names[0]
        raise UserError(f"{wanted}: no such file (nor .gz, .bz2); get it{known} from {self.home}{self.hint}")

    def _compare(self, path: Path, published: str | None) -> None:
        if published is None:
            return
        digest = hashlib.md5()
        try:
            with unpacked(path) as file:
                while data := file.read(1 << 20):
                    digest.update(data)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}: broken ({error}); fetch it again from {self.home}") from error
        if digest.hexdigest() != published:
            self.notes.append(f"{path.name} differs from the published file: md5 {digest.hexdigest()}, not {published}")
            log.warning(self.notes[-1])

    def has(self, *names: str) -> bool:
        return any((self.folder / f"{name}{suffix}").is_file() for name in names for suffix in PACKED)

    def glob(self, pattern: str) -> list[Path]:
        """The files that match, in the order of their names."""
        found = sorted(path for path in self.folder.glob(pattern) if path.is_file())
        if not found:
            raise UserError(f"{self.folder}: no file {pattern}; get it from {self.home}")
        self.used.update({str(path.relative_to(self.folder)): path.stat().st_size for path in found})
        return found

    def length(self, *names: str) -> int:
        """Lines of a file, its header included."""
        path, lines, last = self.find(*names), 0, b"\n"
        try:
            with unpacked(path) as file:
                while data := file.read(1 << 22):
                    lines += data.count(b"\n")
                    last = data
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}: broken after line {lines} ({error}); fetch it again from {self.home}") from error
        return lines + (not last.endswith(b"\n"))

    # Readers ---------------------------------------------------------------------------------------------------

    def csv(
        self,
        *names: str,
        schema: pa.Schema,
        delimiter: str = ",",
        has_header: bool = True,
        rename: Mapping[str, str] | None = None,
        quote: str | bool = '"',
        newlines: bool = False,
        encoding: str = "utf-8",
        separator: str | None = None,
        key: str | None = None,
        optional: tuple[str, ...] = (),
    ) -> Iterator[pa.Table]:
        """The columns of `schema`; `rename` maps a column to its name in the header, `separator` splits its lists.

        Without a header the schema names every column of the file in order. A missing integer sets its row aside, a
        missing number is NaN, a missing string empty, save that columns in `optional` may lack altogether.
        """
        path = self.find(*names)
        titles = {name: (rename or {}).get(name, name) for name in schema.names}
        flat = pa.schema([(n, pa.string() if is_list(schema.field(n).type) else schema.field(n).type) for n in titles])
        seen: set = set()
        found, malformed, total = Rejects(), Rejects(), 0
        with Lines(path, encoding=encoding, delimiter=delimiter) as lines:
            self._check_head(lines, delimiter, has_header, [t for n, t in titles.items() if n not in optional])
            given = None if has_header else schema.names
            parts = tables(
                lines,
                source=path,
                delimiter=delimiter,
                rejects=malformed,
                names=given,
                quote=quote,
                newlines=newlines,
            )
            progress = self._progress(path)
            for rows, table in parts:
                columns = [
                    table[title] if title in table.column_names else pa.nulls(table.num_rows, pa.string())
                    for title in titles.values()
                ]
                columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
                texts = pa.table(columns, names=list(titles)).append_column(ROW, pa.array(rows).cast(pa.string()))
                wide = flat.append(pa.field(ROW, pa.int64()))
                good = cast(texts, schema=wide, file=str(path), rows=rows, rejects=found, key=key, seen=seen)
                total += table.num_rows
                self.count(path, total)
                found = self._absorb(found)
                progress(table.num_rows)
                yield self._typed(good, schema, path, separator)
        self.count(path, total + malformed.count)
        self._absorb(malformed)

    def json_lines(
        self, *names: str, schema: pa.Schema, parse: Callable[[str], dict] = json.loads, rename: Mapping | None = None
    ) -> Iterator[pa.Table]:
        """One JSON object a line; `rename` maps a column to its key. Keys that are absent count as null."""
        path = self.find(*names)
        keys = {name: (rename or {}).get(name, name) for name in schema.names}
        progress = self._progress(path)
        kept: list[dict] = []
        numbers: list[int] = []
        faults: dict[str, list[tuple[int, str]]] = {}
        read = 0
        for number, line in enumerate(self._text_lines(path)):
            row, why = json_object(line, parse)
            if row is None:
                faults.setdefault(why, []).append((number, line[:80]))
            else:
                kept.append(row)
                numbers.append(number)
            read = number + 1
            if read % CHUNK == 0:
                self._settle(path, faults, read)
                progress(CHUNK)
                if kept:
                    yield self._objects(kept, numbers, keys, schema, path)
                kept, numbers, faults = [], [], {}
        self._settle(path, faults, read)
        if kept:
            yield self._objects(kept, numbers, keys, schema, path)

    def _settle(self, path: Path, faults: dict[str, list[tuple[int, str]]], read: int) -> None:
        self.count(path, read)
        for why, lines in faults.items():
            rows, values = zip(*lines, strict=True)
            self.set_aside(path, rows, field="line", why=why, values=list(values))
        if read > EARLY:
            self.check()

    def parquet(self, *names: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """Row groups of the Parquet files; `names` are globs here."""
        files = [path for name in names for path in self.glob(name)]
        for path in files:
            progress = self._progress(path)
            try:
                with pq.ParquetFile(path) as file:
                    for name in schema.names:
                        if name not in file.schema_arrow.names:
                            raise missing_column(name, columns=file.schema_arrow.names, file=str(path))
                    at = 0
                    for batch in file.iter_batches(CHUNK, columns=schema.names):
                        rows = np.arange(at, at + batch.num_rows)
                        table = pa.Table.from_batches([batch]).cast(schema)
                        at += batch.num_rows
                        self.count(path, at)
                        progress(batch.num_rows)
                        yield self._typed(table.append_column(ROW, pa.array(rows)), schema, path, None)
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{path}: not readable as Parquet ({str(error).splitlines()[0][:120]})") from error

    def lines(self, *names: str, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
        """Plain lines with their numbers, for formats of their own; `count` what was read."""
        yield from enumerate(self._text_lines(self.find(*names), encoding))

    # Rows set aside --------------------------------------------------------------------------------------------

    def set_aside(self, path: Path | str, rows, *, field: str, why: str, values: list | None = None) -> None:
        """Names rows that cannot be used."""
        found = Rejects()
        found.add(file=str(path), field=field, why=why, rows=np.asarray(rows, np.int64), values=values)
        self.rejects.absorb(found)

    def keep(self, table: pa.Table, good, *, field: str, why: str) -> pa.Table:
        """The rows of a table read here for which `good` holds; the others are set aside by name."""
        good = np.asarray(good, bool)
        if good.all():
            return table
        at = np.flatnonzero(~good)
        values = [table[field][int(i)].as_py() for i in at[:10]] if field in table.column_names else None
        file = (table.schema.metadata or {}).get(FILE, b"table").decode()
        self.set_aside(file, table[ROW].to_numpy()[at], field=field, why=why, values=values)
        return table.filter(pa.array(good))

    def binary(self, table: pa.Table, field: str) -> pa.Table:
        """The rows whose `field` is 0 or 1."""
        values = table[field].to_numpy()
        return self.keep(table, (values == 0) | (values == 1), field=field, why="neither 0 nor 1")

    def check(self) -> None:
        self.rejects.check(self.rows, self.max_rejects)

    def account(self) -> dict[str, Any]:
        return {"rows": self._rows, "used": self.used, "notes": self.notes}

    def take_over(self, account: Mapping[str, Any], *, rejects: Rejects) -> None:
        """What another reader of the same files has read."""
        for path, rows in account["rows"].items():
            self.count(Path(path), rows)
        self.used |= account["used"]
        self.notes += [note for note in account["notes"] if note not in self.notes]
        self.rejects.absorb(rejects)

    def _absorb(self, found: Rejects) -> Rejects:
        """Takes over what was found, and gives an empty book for what follows."""
        if found.count:
            self.rejects.absorb(found)
            return Rejects()
        return found

    # Within ----------------------------------------------------------------------------------------------------

    def _typed(self, table: pa.Table, schema: pa.Schema, path: Path, separator: str | None) -> pa.Table:
        table = table.replace_schema_metadata({FILE: str(path)})
        for field in schema:
            at = table.column_names.index(field.name)
            values = table[field.name].combine_chunks()
            if is_list(field.type) and not is_list(values.type):
                values = split(values, separator or " ")
                inner = field.type.value_type
                if not pa.types.is_string(inner):
                    values, bad = number_lists(values, inner)
                    table = self.keep(table, ~bad, field=field.name, why=f"not a list of {inner}")
                    values = values.filter(pa.array(~bad))
            elif pa.types.is_integer(field.type) and values.null_count:
                held = pc.is_valid(values)
                table = self.keep(table, held.to_numpy(zero_copy_only=False), field=field.name, why="missing")
                values = values.filter(held)
            elif pa.types.is_floating(field.type):
                values = pc.fill_null(values, float("nan"))
            elif pa.types.is_string(field.type):
                values = pc.fill_null(values, "")
            table = table.set_column(at, field.name, values)
        if self.rows > EARLY:
            self.check()
        return table

    def _objects(self, rows: list[dict], numbers: list[int], keys: dict, schema: pa.Schema, path: Path) -> pa.Table:
        """Rows of parsed JSON; when a column does not convert as a whole, row by row to find the faulty."""
        columns: dict[str, pa.Array] = {}
        bad = np.zeros(len(rows), bool)
        for name, key in keys.items():
            kind = schema.field(name).type
            values = [row.get(key) for row in rows]
            try:
                columns[name] = pa.array(values, kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                fit = [fits(value, kind) for value in values]
                at = np.flatnonzero([not f for f in fit])
                shown = [values[i] for i in at[:10]]
                self.set_aside(path, np.asarray(numbers)[at], field=name, why=f"no {kind}", values=shown)
                bad[at] = True
                columns[name] = pa.array([v if f else None for v, f in zip(values, fit, strict=True)], kind)
        table = pa.table(columns).append_column(ROW, pa.array(numbers, pa.int64())).filter(pa.array(~bad))
        return self._typed(table, schema, path, None)

    def _text_lines(self, path: Path, encoding: str = "utf-8") -> Iterator[str]:
        done = 0
        with unpacked(path) as file:
            try:
                for line in file:
                    done += 1
                    try:
                        yield line.decode(encoding).rstrip("\r\n")
                    except UnicodeDecodeError:
                        yield "\ufffd"  # parses as nothing, so the row is named by its reader
            except (EOFError, OSError, zlib.error) as error:
                raise UserError(f"{path}: broken after line {done} ({error}); fetch it again") from error

    def _check_head(self, lines: Lines, delimiter: str, has_header: bool, titles: list[str]) -> None:
        found = header(lines, "\x1f" if len(delimiter) > 1 else delimiter)
        if len(found) == 1 and len(titles) > 1:
            other = max(",\t;|^", key=found[0].count)
            hint = f"; it has {found[0].count(other)} {other!r}" if found[0].count(other) else ""
            raise UserError(
                f"{lines.path}: the first line has no {delimiter!r}{hint}: is this the file of the release?"
            )
        if has_header:
            for title in titles:
                if title not in found:
                    raise missing_column(title, columns=found, file=str(lines.path))

    def _progress(self, path: Path) -> Callable[[int], None]:
        state = {"rows": 0, "next": time.monotonic() + 5}

        def report(rows: int) -> None:
            state["rows"] += rows
            if time.monotonic() > state["next"]:
                log.info("%s: %d rows", path.name, state["rows"])
                state["next"] = time.monotonic() + 5

        return report
