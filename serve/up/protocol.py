"""uvicorn's connections, let go where a client dawdles: uvicorn itself waits for a head for ever.

A connection has so many seconds to send a head of at most HEAD_BYTES, and so many to take its last answer. More
connections than the limit are closed as they come.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.up.config import Limits

HEAD_BYTES = 1 << 16


class Connection(HttpToolsProtocol):
    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections are open; close those that idle")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        between = self.cycle is None or self.cycle.response_complete
        if between:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"the head of the request is above {HEAD_BYTES:,} bytes")

    def on_headers_complete(self) -> None:
        self._cancel()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():  # a client that does not read what it asked for
            self.loop.call_later(self.limits.head_seconds, self._drop_unread)

    def send_400_response(self, msg: str) -> None:
        """In the shape of every other error."""
        self._refuse(400, f"this is not HTTP as RFC 9112 has it: {msg}")

    def _await_head(self) -> None:
        self._cancel()
        self._head_timer = self.loop.call_later(self.limits.head_seconds, self._late)

    def _cancel(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        self._refuse(408, f"the head of the request did not arrive within {self.limits.head_seconds:g} s")

    def _drop_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message, "status": status, "request_id": ""}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
        self.transport.write(STATUS_LINE[status] + head + str(len(body)).encode() + b"\r\n\r\n" + body)
        self.transport.close()
