"""Load on a server of this machine: closed loops for its saturation, an open loop for its latencies. No dependency."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Body = tuple[str, dict[str, str], bytes]
"""Path, headers, body."""


@dataclass
class Report:
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    broken: int = 0
    """Connections that broke under a request."""

    @property
    def good(self) -> int:
        return self.statuses.get(200, 0)

    @property
    def failed(self) -> int:
        return self.broken + sum(self.statuses.values()) - self.good

    @property
    def rate(self) -> float:
        return self.good / max(self.seconds, 1e-9)

    def percentiles(self, *wanted: float) -> list[float]:
        return np.percentile(self.latencies or [np.nan], wanted).tolist()

    def add(self, status: int, latency: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.append(latency)


class Connection:
    """One keep-alive connection, opened anew where the server closed it between requests."""

    def __init__(self, port: int):
        self._port, self._streams = port, None

    async def ask(self, raw: bytes) -> int:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # it lay idle for longer than the server keeps connections open
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        reader, writer = self._streams
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length: ")
        await reader.readexactly(int(lower[at + 16 : lower.find(b"\r\n", at)]))
        if b"connection: close" in lower:
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    def __init__(self, port: int, bodies: Sequence[Body]):
        self.port = port
        self.requests = [as_bytes(body) for body in bodies]

    async def closed(self, *, clients: int, seconds: float) -> Report:
        """Each client asks again as soon as it is answered."""
        report, begun = Report(), time.perf_counter()

        async def client(at: int) -> None:
            connection = Connection(self.port)
            while time.perf_counter() < begun + seconds:
                at += clients
                await self._ask(connection, self.requests[at % len(self.requests)], report, due=time.perf_counter())
            connection.close()

        await asyncio.gather(*(client(n) for n in range(clients)))
        report.seconds = time.perf_counter() - begun
        return report

    async def open(self, *, rate: float, seconds: float, seed: int = 0) -> Report:
        """Requests come at random moments, `rate` a second, whether or not earlier ones are answered."""
        report, draw = Report(), random.Random(seed)
        idle: list[Connection] = []
        running: set[asyncio.Task] = set()

        async def one(raw: bytes, due: float) -> None:
            connection = idle.pop() if idle else Connection(self.port)
            await self._ask(connection, raw, report, due=due)
            idle.append(connection)

        begun = due = time.perf_counter()
        number = 0
        while due < begun + seconds:
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(one(self.requests[number % len(self.requests)], due))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
        await asyncio.gather(*running)
        report.seconds = time.perf_counter() - begun
        for connection in idle:
            connection.close()
        return report

    async def _ask(self, connection: Connection, raw: bytes, report: Report, *, due: float) -> None:
        try:
            status = await connection.ask(raw)
        except (OSError, asyncio.IncompleteReadError):
            report.broken += 1
            connection.close()
            return
        report.add(status, time.perf_counter() - due)


def as_bytes(body: Body) -> bytes:
    path, headers, content = body
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content
