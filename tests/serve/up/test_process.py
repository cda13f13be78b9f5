"""The server as a process: start, load, hot swap, clients that dawdle, and an end in order."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest

from data.errors import UserError
from serve.__main__ import parser
from serve.artifact import load
from serve.cli_up import config_of, run_up
from tests.serve.up.conftest import export, rows_of, tensors, wait_for

BODY = json.dumps({"inputs": tensors(rows_of(3))}).encode()
INFER = "/v2/models/tower/infer"


class Server:
    def __init__(self, path, root, *flags):
        words = [sys.executable, "-m", "serve", "up", str(path), "--port", "0", "--max-batch", "32", *map(str, flags)]
        cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
        self.process = subprocess.Popen(
            [*words, "--compile-cache", cache], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.line = self.process.stdout.readline()
        assert "http://127.0.0.1:" in self.line, self.process.stderr.read()
        self.port = int(self.line.rsplit(":", 1)[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections = []

    def stop(self):
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20)

    def connect(self):
        self.connections.append(socket.create_connection(("127.0.0.1", self.port), timeout=20))
        return self.connections[-1]

    def hang_up(self):
        while self.connections:
            self.connections.pop().close()

    def post(self, **options):
        return httpx.post(self.url + INFER, content=BODY, timeout=20, **options)


@contextlib.contextmanager
def running(path, root, *flags):
    server = Server(path, root, *flags)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def strict(exported, tmp_path_factory):
    """A server of short limits."""
    from tests.conftest import ROOT

    limits = ("--head-seconds", 1, "--body-seconds", 1, "--idle-seconds", 60, "--body-mib", 1, "--connections", 1100)
    with running(exported, ROOT, "--watch", 0, *limits) as server:
        yield server


def received(connection):
    """Status and body of the answer, once the server has closed."""
    raw = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def head_of(length, *, path=INFER):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def test_swaps_under_load_and_ends_in_order(root, tmp_path):
    folder = tmp_path / "export"
    versions = {export(folder).name: load(folder)(rows_of(3))["score"]}
    failed, seen, stop = [], [], threading.Event()

    def go_on(url):
        with httpx.Client(base_url=url, timeout=20) as client:
            while not stop.is_set():
                answer = client.post(INFER, content=BODY)
                if answer.status_code != 200:
                    failed.append(answer.text)
                else:
                    seen.append(answer.json())

    with running(folder, root, "--watch", 0.1, "--drain", 5) as server:
        loads = [threading.Thread(target=go_on, args=(server.url,)) for _ in range(3)]
        for thread in loads:
            thread.start()
        newest = export(folder, seed=2)
        versions[newest.name] = load(newest)(rows_of(3))["score"]
        wait_for(lambda: seen and seen[-1]["model_version"] == newest.name)
        half = server.connect()  # a request that is under way when the end is asked for
        half.sendall(head_of(len(BODY)) + BODY[:20])
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(server.url + "/ready").status_code == 503)
        assert server.post().status_code == 200  # still serving, so that no one is dropped meanwhile
        stop.set()
        for thread in loads:
            thread.join()
        wait_for(lambda: refuses(server.port))
        half.sendall(BODY[20:])
        assert received(half)[0] == 200
        assert server.process.wait(10) == 0
    assert not failed
    assert {found["model_version"] for found in seen} == set(versions)
    for found in seen:
        (score,) = [t["data"] for t in found["outputs"] if t["name"] == "score"]
        np.testing.assert_allclose(score, versions[found["model_version"]], atol=1e-6)


def test_a_second_signal_ends_it_at_once(root, exported):
    flags = ("--watch", 0, "--drain", 60, "--finish", 60, "--body-seconds", 60)
    with running(exported, root, *flags) as server:
        server.connect().sendall(head_of(len(BODY)) + BODY[:20])  # a request that no one would wait for any more
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(server.url + "/ready").status_code == 503)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_body_of_100_mb_is_not_read_whole(strict):
    connection, sent = strict.connect(), 0
    connection.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(1600):
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536
    assert sent < 20 << 20  # buffers of the kernel hold some of it
    connection = strict.connect()
    connection.sendall(head_of(100 << 20, path="/v1/rank"))
    status, body = received(connection)
    assert status == 413 and "104,857,600 bytes" in body["error"]


def test_clients_that_dawdle_are_let_go(strict):
    silent, begun, slow = strict.connect(), strict.connect(), strict.connect()
    begun.sendall(b"GET /health HTTP/1.1\r\nHo")
    slow.sendall(head_of(1000) + b"{")
    drip = threading.Thread(target=_drip, args=(begun,))
    drip.start()
    for connection, words in ((silent, "head"), (begun, "head"), (slow, "body")):
        status, body = received(connection)
        assert status == 408 and f"{words}" in body["error"] and "1 s" in body["error"]
    drip.join()


def _drip(connection):
    """A letter at a time does not buy more time."""
    with contextlib.suppress(OSError):
        for _ in range(30):
            connection.sendall(b"o")
            time.sleep(0.1)


def test_what_is_no_http_is_answered_in_the_one_shape(strict):
    for words, status in ((b"nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431)):
        connection = strict.connect()
        connection.sendall(words)
        found, body = received(connection)
        assert found == body["status"] == status


def test_a_thousand_idle_connections_disturb_no_one(strict):
    idle = []
    for _ in range(1000):
        connection = strict.connect()
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.append(connection)
    assert all(connection.recv(4096).startswith(b"HTTP/1.1 200") for connection in idle)
    begun = time.monotonic()
    assert strict.post().status_code == 200
    assert time.monotonic() - begun < 5
    more = [strict.connect() for _ in range(200)]  # above the limit
    answers = [received(connection)[0] for connection in more[150:]]
    assert set(answers) == {503}
    strict.hang_up()
    time.sleep(0.2)
    assert strict.post().status_code == 200


def test_a_wrong_start_is_one_line_and_exit_code_2(root, tmp_path):
    words = [sys.executable, "-m", "serve", "up", str(tmp_path / "nothing")]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "nothing is not a folder" in done.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--waiting", "0"], "waiting is 0, it must be above 0"),
        (["--token-file", os.devnull], "must hold one token of ASCII characters"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, reason):
    with pytest.raises(UserError, match=reason):
        config_of(parser().parse_args(["up", str(tmp_path), *flags]))


def test_flags_reach_the_config(tmp_path, monkeypatch):
    monkeypatch.setenv("ADLOOM_TOKEN", "from the environment".replace(" ", "-"))
    words = ["--window-ms", "3", "--watch", "0", "--rows", "7", "--drain", "0.5", "--index", "i", "--read-only"]
    config = config_of(parser().parse_args(["up", str(tmp_path), *words]))
    assert (config.window_seconds, config.watch_seconds, config.drain_seconds) == (0.003, 0, 0.5)
    assert config.limits.rows == 7 and config.limits.k == 1000 and config.read_only and str(config.index) == "i"
    assert config.token == "from-the-environment"


def test_without_the_extra_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "serve.up.run", None)
    with pytest.raises(UserError, match=r"pip install 'adloom\[up\]'"):
        run_up(parser().parse_args(["up", str(tmp_path)]))


@pytest.mark.parametrize(
    ("flags", "there", "cores"),
    [([], None, "4"), (["--threads", "16"], None, "1"), (["--cores", "3"], None, "3"), (["--cores", "3"], "6", "6")],
)
def test_calls_of_the_device_share_the_cores(tmp_path, monkeypatch, flags, there, cores):
    seen = []
    monkeypatch.setenv("NPROC", there) if there else monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr("serve.up.run.run", lambda config, **given: seen.append(os.environ["NPROC"]))
    monkeypatch.setattr("serve.cli_up.use_compile_cache", lambda folder: None)
    monkeypatch.setattr("serve.cli_up._open_files", lambda connections: None)
    run_up(parser().parse_args(["up", str(tmp_path), *flags]))
    assert seen == [cores]
