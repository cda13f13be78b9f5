"""Against a Redis of our own, started on a socket in a folder of the test; skipped where there is no redis-server."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from serve.__main__ import main
from serve.features.arrow_store import build
from serve.features.redis_store import RedisStore, write
from serve.features.store import StoreDown, open_store
from tests.serve.features.test_arrow_store import table

SERVER = shutil.which("redis-server")
needs_server = pytest.mark.skipif(SERVER is None, reason="redis-server is not on the PATH")


@pytest.fixture
def server(tmp_path_factory):
    """Starts a Redis and gives its address and process; it is killed at the end."""
    redis = pytest.importorskip("redis")
    folder = tmp_path_factory.mktemp("r")
    socket = folder / "s"
    command = [SERVER, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            client = redis.Redis(unix_socket_path=str(socket))
            for _ in range(200):
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.05)
            else:
                raise RuntimeError("redis-server did not start")
            client.close()
            yield f"unix://{socket}", process
        finally:
            process.kill()


@needs_server
@pytest.mark.parametrize("text", [False, True])
def test_answers_as_the_folder_of_the_same_rows(rng, tmp_path, server, text):
    rows = table(rng, text=text)
    folder = build(rows, id="item", output=tmp_path / "store")
    write(rows, id="item", url=f"{server[0]}#items")
    store = open_store(f"{server[0]}#items")
    assert isinstance(store, RedisStore)
    assert len(store) == 500
    asked = [*rows["item"].to_pylist()[:40], "none" if text else 77_777, rows["item"][7].as_py()]
    names = ["vector", "price", "item", "tags"]
    got, wanted = store.get(asked, names=names), folder.get(asked, names=names)
    assert got.columns.equals(wanted.columns.replace_schema_metadata(None).combine_chunks())
    np.testing.assert_array_equal(got.found, wanted.found)


@needs_server
def test_a_new_version_becomes_current_at_once_and_the_old_one_stays_for_its_readers(rng, server):
    url = f"{server[0]}#items"
    old = write(pa.table({"item": ["a", "b"], "price": [1.0, 2.0]}), id="item", url=url)
    new = write(pa.table({"item": ["a", "c"], "price": [3.0, None]}), id="item", url=url, grace=1)
    assert new.version != old.version
    assert old.get(["a", "b"], names=["price"]).columns["price"].to_pylist() == [1.0, 2.0]
    found = new.get(["a", "b", "c"], names=["price"])
    assert found.columns["price"].to_pylist() == [3.0, None, None]
    assert found.found.tolist() == [True, False, True]
    deadline = time.monotonic() + 10
    while old.get(["a"], names=["price"]).found.any():
        assert time.monotonic() < deadline, "the old version never expires"
        time.sleep(0.05)
    assert new.get(["a"], names=["price"]).found.all()
    again = write(pa.table({"item": ["a", "c"], "price": [3.0, None]}), id="item", url=url)
    assert again.version == new.version
    assert again.get(["c"], names=["price"]).found.all()


@needs_server
def test_what_is_current_never_expires_though_it_was_old_once_or_is_written_twice(server):
    url = f"{server[0]}#items"
    first, second = (pa.table({"item": ["a", "b"], "price": [price, 2.0]}) for price in (1.0, 3.0))

    def lives(store):
        return {store._client.ttl(key) for key in store._client.scan_iter(match=f"items:{store.version}:*")}

    forever = {-1}
    assert lives(write(first, id="item", url=url)) == lives(write(first, id="item", url=url)) == forever
    old, new = RedisStore(url), write(second, id="item", url=url)
    assert lives(new) == forever != lives(old)
    back = write(first, id="item", url=url)
    assert back.version == old.version
    assert lives(back) == forever != lives(new)


@needs_server
def test_one_that_went_away_or_hangs_is_said_to_be_down(rng, server):
    address, process = server
    store = write(table(rng), id="item", url=f"{address}#items")
    process.send_signal(19)  # SIGSTOP: it accepts and never answers
    begun = time.monotonic()
    with pytest.raises(StoreDown, match="cannot be reached: Timeout"):
        store.get([1], names=["price"])
    assert time.monotonic() - begun < 3
    process.kill()
    process.wait()
    with pytest.raises(StoreDown, match=r"the feature store unix://.* cannot be reached"):
        store.get([1], names=["price"])


@needs_server
def test_the_command_writes_and_names_what_is_wrong(rng, tmp_path, server, capsys):
    address, _ = server
    pq.write_table(table(rng), tmp_path / "items.parquet")
    assert main(["features", str(tmp_path / "items.parquet"), "--redis", f"{address}#shop"]) == 0
    assert "wrote shop: 500 rows of 4 columns" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds no store"):
        open_store(f"{address}#other")
    with pytest.raises(UserError, match="id 1 stands twice"):
        write(pa.table({"item": [1, 1]}), id="item", url=f"{address}#shop")
    with pytest.raises(UserError, match="column 'when' is timestamp"):
        write(pa.table({"item": [1], "when": pa.array([0], pa.timestamp("s"))}), id="item", url=f"{address}#shop")


def test_addresses_are_checked_and_passwords_not_shown(monkeypatch):
    pytest.importorskip("redis")
    with pytest.raises(UserError, match="redis://localhost names no store"):
        open_store("redis://:secret@localhost")
    with pytest.raises(UserError, match="ftp://localhost is no address of a Redis"):
        open_store("ftp://localhost#items")
    monkeypatch.setenv("SHOP_PASSWORD", "secret")
    with pytest.raises(StoreDown) as caught:
        open_store("redis://:$SHOP_PASSWORD@127.0.0.1:1#items")
    assert "secret" not in str(caught.value)


def test_without_the_extra_it_says_which_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UserError, match=r"pip install 'adloom\[redis\]'"):
        open_store("redis://localhost#items")
