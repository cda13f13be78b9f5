"""What /metrics shows, one registry a server. Names of routes bound the series; a path of the network makes none."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = tuple(2.0**n for n in range(14))

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Also the Watcher of a Batcher."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own: dict[str, Any] = {"registry": self._registry}
        labels = ("route", "method", "status")
        self._requests = Counter("adloom_requests", "Answered requests.", labels, **own)
        self._seconds = Histogram("adloom_request_seconds", "To the answer.", ("route",), buckets=SECONDS, **own)
        self._running = Gauge("adloom_requests_running", "Requests under way.", **own)
        self._queue = Gauge("adloom_queue_length", "Requests that wait for the device.", **own)
        self._wait = Histogram("adloom_queue_seconds", "Waited for the device.", buckets=SECONDS, **own)
        self._calls = Histogram("adloom_call_seconds", "A call of the device.", buckets=SECONDS, **own)
        self._rows = Histogram("adloom_call_rows", "Rows, candidates or queries in a call.", buckets=SIZES, **own)
        self._joined = Histogram("adloom_call_requests", "Requests in a call.", buckets=SIZES[:8], **own)
        self._model = Gauge("adloom_model_info", "1 for what is served.", ("kind", "version"), **own)
        self._items = Gauge("adloom_index_items", "Vectors in the index.", **own)
        self._swaps = Counter("adloom_swaps", "Newer versions met.", ("result",), **own)

    def watch(self, *, queue: Callable[[], float], items: Callable[[], float]) -> None:
        self._queue.set_function(queue)
        self._items.set_function(items)

    def begun(self) -> None:
        self._running.inc()

    def ended(self, *, route: str, method: str, status: int, seconds: float) -> None:
        self._running.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def waited(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def called(self, *, requests: int, rows: int, seconds: float) -> None:
        self._calls.observe(seconds)
        self._rows.observe(rows)
        self._joined.observe(requests)

    def serves(self, versions: dict[str, str]) -> None:
        self._model.clear()
        for kind, version in versions.items():
            self._model.labels(kind, version).set(1)

    def swapped(self, *, well: bool) -> None:
        self._swaps.labels("done" if well else "refused").inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)
