"""Around every request: its id, who may come in, what is counted, and the shape of what goes wrong."""

import hmac
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import Request

from serve.up.errors import Problem, answer
from serve.up.home import FILES
from serve.up.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = frozenset({"/health", "/ready", "/v2/health/live", "/v2/health/ready", *FILES})
"""Asked by those who start and stop servers; and the page, which asks for the token. None says what is served."""

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Gate:
    def __init__(self, app: Any, *, metrics: Metrics, token: str | None, draining: Callable[[], bool]):
        self._app, self._metrics, self._draining = app, metrics, draining
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        id = scope["adloom.request_id"] = given if SANE_ID.fullmatch(given) else uuid.uuid4().hex

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
                if self._draining():  # the client is to look for another server
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self._metrics.begun()
        try:
            refused = self._refusal(request)
            if refused is None:
                await self._app(scope, receive, sending)
            else:
                await answer(refused, request_id=id)(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - begun
            self._metrics.ended(route=route, method=scope["method"], status=status, seconds=seconds)

    def _refusal(self, request: Request) -> Problem | None:
        if self._token is None or request.url.path in OPEN:
            return None
        words = request.headers.get("authorization", "").split(" ", 1)
        given = words[1].strip() if len(words) == 2 and words[0].lower() == "bearer" else ""
        # Both sides are compared to their ends, whatever the first differing byte is.
        if hmac.compare_digest(given.encode("latin-1", "replace"), self._token):
            return None
        return Problem(
            401, "send the server's token as Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
        )
