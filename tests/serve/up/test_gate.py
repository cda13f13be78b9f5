"""Who may come in, what is counted, sizes and times of bodies, and the pages of those who run a server."""

import asyncio
import re
import threading

import pytest

from serve.up import gate
from serve.up.config import Limits
from tests.serve.up.conftest import ask, client_of, rows_of, serving, tensors, until


@pytest.fixture(scope="module")
def guarded(exported):
    limits = Limits(body_mib=0.01, body_seconds=0.2, waiting=3, request_seconds=1.5)
    with serving(exported, token="secret", limits=limits, name="shop") as app:
        yield app


AUTH = {"Authorization": "Bearer secret"}


def test_the_token_is_asked_for_everywhere_but_health(guarded):
    assert ask(guarded, "GET", "/v2", headers=AUTH).status_code == 200
    assert ask(guarded, "GET", "/v2", headers={"Authorization": "bearer  secret "}).status_code == 200
    for wrong in (
        {},
        {"Authorization": "Bearer secre"},
        {"Authorization": "Basic secret"},
        {"Authorization": "secret"},
    ):
        for method, path in (("GET", "/v2"), ("POST", "/v1/rank"), ("GET", "/metrics"), ("GET", "/nowhere")):
            answer = ask(guarded, method, path, headers=wrong)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert "secret" not in answer.text
    assert ask(guarded, "GET", "/v2", headers={"Authorization": "Bearer séc".encode()}).status_code == 401
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
        assert ask(guarded, "GET", path).status_code == 200


def test_a_request_keeps_its_sane_id(app):
    assert ask(app, "GET", "/health", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for odd in ("", "a b", "x" * 65, "<script>"):
        assert re.fullmatch(
            "[0-9a-f]{32}", ask(app, "GET", "/health", headers={"X-Request-Id": odd}).headers["x-request-id"]
        )


def test_errors_of_routing_have_the_one_shape(app):
    for method, path, status in (("GET", "/nowhere", 404), ("DELETE", "/v1/rank", 405)):
        answer = ask(app, method, path)
        assert answer.status_code == status and answer.json().keys() == {"error", "status", "request_id"}
    assert ask(app, "DELETE", "/v1/rank").headers["allow"] == "POST"


def test_what_fails_inside_says_nothing_of_the_inside(exported, monkeypatch, caplog):
    with serving(exported) as app:
        monkeypatch.setattr(type(app.state.house.serving), "rank", lambda *_, **__: 1 / 0)
        answer = ask(app, "POST", "/v1/rank", json={"user": {}, "candidates": [{"item": 1}]})
        assert answer.status_code == 500 and "its log has the reason" in answer.json()["error"]
        assert "division" not in answer.text
        assert 'status="500"' in ask(app, "GET", "/metrics").text


def test_tokens_are_compared_to_their_ends(guarded, monkeypatch):
    """How long an answer takes says nothing of how much of a token is right: hmac compares, whatever it is given."""
    compared = []

    def digest(given, token):
        compared.append((given, token))
        return given == token

    monkeypatch.setattr(gate.hmac, "compare_digest", digest)
    for token in ("s", "secrer", "secret", "secret and more"):
        ask(guarded, "GET", "/v2", headers={"Authorization": f"Bearer {token}"})
    ask(guarded, "GET", "/v2")
    assert compared == [(g, b"secret") for g in (b"s", b"secrer", b"secret", b"secret and more", b"")]


class Endless:
    """A body that says how much of it was taken."""

    def __init__(self, *, pause=0.0):
        self.taken, self.pause = 0, pause

    async def __aiter__(self):
        for _ in range(100):
            await asyncio.sleep(self.pause)
            self.taken += 1 << 10
            yield b"x" * (1 << 10)


def test_a_body_above_the_limit_is_refused_before_it_is_read(guarded):
    headers = {**AUTH, "Content-Length": str(100 << 20)}
    body = Endless()
    answer = ask(guarded, "POST", "/v1/rank", headers=headers, content=body)
    assert answer.status_code == 413 and "104,857,600 bytes, at most 10,485" in answer.json()["error"]
    assert answer.headers["connection"] == "close"


def test_a_body_that_does_not_say_its_size_is_read_to_the_limit_alone(guarded):
    answer = ask(guarded, "POST", "/v2/models/shop/infer", headers=AUTH, content=Endless())
    assert answer.status_code == 413 and "more than 10,485 bytes" in answer.json()["error"]


def test_a_body_that_does_not_come_is_given_up(guarded):
    """httpx hands a whole body to an application, so this speaks ASGI itself."""

    async def receive():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/rank", "raw_path": b"/v1/rank", "query_string": b""}
    scope |= {"headers": [(b"authorization", b"Bearer secret")], "http_version": "1.1", "root_path": ""}
    asyncio.run(guarded(scope, receive, send))
    assert sent[0]["status"] == 408 and b"did not arrive within 0.2 s" in sent[1]["body"]


def test_more_requests_than_may_wait_get_429_and_late_ones_504(guarded, monkeypatch):
    go, begun = threading.Event(), []
    house = guarded.state.house
    real = house.serving.artifact.forward
    monkeypatch.setattr(house.serving.artifact, "forward", lambda rows: (begun.append(1), go.wait(10), real(rows))[2])

    async def run():
        async with client_of(guarded, headers=AUTH) as client:
            path, body = "/v2/models/shop/infer", {"inputs": tensors(rows_of(2))}

            def ask_for(count):
                return [asyncio.create_task(client.post(path, json=body)) for _ in range(count)]

            slow = ask_for(1)
            await until(lambda: len(begun) == 1)  # a device thread each, before others can be joined to it
            slow += ask_for(1)
            await until(lambda: len(begun) == 2)
            slow += ask_for(3)
            await until(lambda: house.waiting == 3)
            refused = await asyncio.gather(*ask_for(4))
            late = await asyncio.gather(*slow)
            go.set()
            await until(lambda: house.waiting == 0)  # what came too late is still taken out of the queue, one by one
            return refused, late

    refused, late = asyncio.run(run())
    assert {answer.status_code for answer in refused} == {429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.status_code for answer in late} == {504}
    assert ask(guarded, "POST", "/v2/models/shop/infer", headers=AUTH, json={"inputs": tensors(rows_of(2))}).is_success


def test_metrics_count_requests_calls_and_versions(exported):
    with serving(exported) as app:
        ask(app, "POST", "/v2/models/tower/infer", json={"inputs": tensors(rows_of(5))})
        ask(app, "POST", "/v2/models/nothing/infer", json={})
        for path in ("/a", "/b"):
            ask(app, "GET", path)
        text = ask(app, "GET", "/metrics").text
        version = app.state.house.serving.artifact.version
    for line in (
        'adloom_requests_total{method="POST",route="/v2/models/{name}/infer",status="200"} 1.0',
        'adloom_requests_total{method="POST",route="/v2/models/{name}/infer",status="404"} 1.0',
        'adloom_requests_total{method="GET",route="none",status="404"} 2.0',
        'adloom_request_seconds_count{route="/v2/models/{name}/infer"} 2.0',
        "adloom_call_rows_sum 5.0",
        "adloom_call_requests_sum 1.0",
        "adloom_queue_length 0.0",
        "adloom_requests_running 1.0",
        f'adloom_model_info{{kind="model",version="{version}"}} 1.0',
        "process_resident_memory_bytes",
    ):
        assert line in text, line


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere(app):
    page = ask(app, "GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script|<link|<img|@import|https?://", page.text)
    for path in ask(app, "GET", "/openapi.json").json()["paths"]:
        assert path in page.text


def test_the_document_describes_every_route_and_its_bodies(app, guarded):
    document = ask(app, "GET", "/openapi.json").json()
    assert {"/v1/rank", "/v1/retrieve", "/v1/items", "/metrics", "/v2/models/{name}/infer"} <= document["paths"].keys()
    named = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert named <= document["components"]["schemas"].keys()
    infer = document["paths"]["/v2/models/{name}/infer"]["post"]
    assert {"200", "400", "404", "413", "422", "429", "503", "504"} <= infer["responses"].keys()
    assert "security" not in document
    assert ask(guarded, "GET", "/openapi.json", headers=AUTH).json()["security"] == [{"bearer": []}]


def test_not_ready_while_draining_but_still_serving(exported):
    with serving(exported) as app:
        app.state.house.draining = True
        for path in ("/ready", "/v2/health/ready", "/v2/models/tower/ready"):
            assert ask(app, "GET", path).status_code == 503
        answer = ask(app, "POST", "/v2/models/tower/infer", json={"inputs": tensors(rows_of(2))})
        assert answer.status_code == 200 and answer.headers["connection"] == "close"
        assert ask(app, "GET", "/health").status_code == 200


def test_a_server_that_is_closed_takes_no_more(exported):
    with serving(exported) as app:
        pass
    answer = ask(app, "POST", "/v2/models/tower/infer", json={"inputs": tensors(rows_of(2))})
    assert answer.status_code == 503 and "the server is stopping" in answer.json()["error"]


def test_reload_needs_a_token_to_have_been_set(app, guarded):
    assert ask(app, "POST", "/v1/reload").status_code == 403
    assert ask(guarded, "POST", "/v1/reload", headers=AUTH).json()["swapped"] is False
