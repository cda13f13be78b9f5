"""The store of many machines: Redis, a hash per row, as the extra `redis`.

    NAME                    what is current: {"version", "id", "rows", "schema"}
    NAME:<version>:<id>     a hash of the row's columns; its field "" is there even where all columns are null

A new version is written beside the old one and becomes current in one step; the old rows stay GRACE seconds longer for
those that opened them. Reads are one pipelined round trip of HMGET for all ids.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from data.columns import is_bytes, is_list, is_text
from data.errors import UserError
from data.manifest import digest
from data.paths import filled
from serve.features.store import Ids, Looked, StoreDown, by_hash, check_names, key_array

TIMEOUT = 0.25
"""Seconds that a read may take before the request fails: a ranking that waits longer is late anyway."""
PATIENT = 30.0
GRACE = 3600
CHUNK = 1000
MARK = ""


class RedisStore:
    """Opened by redis://HOST:PORT/DB#NAME; pinned to the version that is current then. Threads may share it."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT):
        self._address, self.name = _split(url)
        self._client = _client(self._address, timeout=timeout)
        with _reachable(self._address):
            stored = self._client.get(self.name)
        if stored is None:
            raise UserError(
                f"{self._where} holds no store; python -m serve features ... --redis {self._where} writes it"
            )
        about = json.loads(stored)
        self.version, self.id = str(about["version"]), str(about["id"])
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(about["schema"])))
        self._rows = int(about["rows"])

    @property
    def _where(self) -> str:
        return f"{_shown(self._address)}#{self.name}"

    def __len__(self) -> int:
        return self._rows

    def get(self, ids: Ids, *, names: Collection[str]) -> Looked:
        """The columns `names` of these ids, in one round trip."""
        wanted = check_names(names, schema=self.schema, store=self._where)
        keys = key_array(ids, of=self.schema.field(self.id).type, store=self._where).to_pylist()
        with _reachable(self._address):
            pipe = self._client.pipeline(transaction=False)
            for key in keys:
                pipe.hmget(_key(self.name, self.version, key), [MARK, *wanted])
            rows = pipe.execute()
        columns = {
            name: pa.array([_value(row[k + 1], self.schema.field(name).type) for row in rows], _type(self.schema, name))
            for k, name in enumerate(wanted)
        }
        return Looked(pa.table(columns), np.array([row[0] is not None for row in rows], bool))


def write(table: pa.Table, *, id: str, url: str, timeout: float = PATIENT, grace: int = GRACE) -> RedisStore:
    """Writes the rows and makes them current; the version before them expires after `grace` seconds."""
    table, _ = by_hash(table, id=id)
    for field in table.schema:
        _check_type(field)
    address, name = _split(url)
    client = _client(address, timeout=timeout)
    keys = table[id].to_pylist()
    version = _version(table, id=id)
    with _reachable(address):
        before = client.get(name)
        for start in range(0, len(keys), CHUNK):
            pipe = client.pipeline(transaction=False)
            for row in table.slice(start, CHUNK).to_pylist():
                fields = {n: _text(v) for n, v in row.items() if v is not None}
                key = _key(name, version, row[id])
                pipe.hset(key, mapping={MARK: "", **fields})
                pipe.persist(key)  # it may be a version that came back before it expired
            pipe.execute()
        schema = base64.b64encode(table.schema.serialize().to_pybytes()).decode()
        client.set(name, json.dumps({"version": version, "id": id, "rows": len(keys), "schema": schema}))
        if before is not None and (old := json.loads(before)["version"]) != version:
            _expire(client, pattern=f"{_escaped(name)}:{old}:*", seconds=grace)
    return RedisStore(url)


def _expire(client: Any, *, pattern: str, seconds: int) -> None:
    found = client.scan_iter(match=pattern, count=CHUNK)
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.expire(key, seconds)
        if len(pipe) >= CHUNK:
            pipe.execute()
    pipe.execute()


def _client(address: str, *, timeout: float) -> Any:
    try:
        import redis
    except ImportError as error:
        raise UserError("a store in Redis needs the extra: pip install 'adloom[redis]'") from error
    try:
        return redis.from_url(
            address, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None, decode_responses=True
        )
    except ValueError as error:
        raise UserError(f"{_shown(address)} is no address of a Redis: {error}") from error


@contextmanager
def _reachable(address: str) -> Iterator[None]:
    import redis

    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreDown(f"the feature store {_shown(address)} cannot be reached: {error}") from error
    except redis.RedisError as error:
        raise UserError(f"the feature store {_shown(address)} refused: {error}") from error


def _split(url: str) -> tuple[str, str]:
    """Address of the server and name of the store; $NAME in it keeps a password out of configs."""
    address, _, name = url.rpartition("#")
    if not (address and name):
        raise UserError(f"{_shown(url.removesuffix('#'))} names no store; write redis://HOST:PORT/DB#NAME")
    return filled(address), name


def _shown(address: str) -> str:
    """The address without a password."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _key(name: str, version: str, id: Any) -> str:
    return f"{name}:{version}:{id}"


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _version(table: pa.Table, *, id: str) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return digest({"id": id, "rows": hashlib.sha256(sink.getvalue()).hexdigest()})


def _check_type(field: pa.Field) -> None:
    inner = field.type.value_type if is_list(field.type) else field.type
    fine = any(test(inner) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))
    if not (fine or is_text(inner) or (is_bytes(inner) and inner is field.type)):
        raise UserError(
            f"column {field.name!r} is {field.type}; a store in Redis holds numbers, strings, bytes, and lists of them"
        )


def _type(schema: pa.Schema, name: str) -> pa.DataType:
    return schema.field(name).type


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json.dumps(value)


def _value(text: str | None, kind: pa.DataType) -> Any:
    if text is None:
        return None
    return base64.b64decode(text) if is_bytes(kind) else json.loads(text)
