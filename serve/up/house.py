"""A server without its HTTP: what is served now, the queue before the device, the limits, and whether it is ready."""

from collections.abc import Callable
from typing import Any

from serve.up.batching import Batcher, Outputs, Rows
from serve.up.config import Up
from serve.up.errors import Problem, too_large
from serve.up.metrics import Metrics
from serve.up.serving import Serving
from serve.up.swap import Every, Holder


class House:
    """Opens what it serves at once and raises UserError where that is bad."""

    def __init__(self, config: Up):
        self.config, self.metrics = config, Metrics()
        self.holder = Holder(config, metrics=self.metrics)
        self.draining = False
        self._batcher = Batcher(
            waiting=config.limits.waiting,
            most=config.max_batch,
            window=config.window_seconds,
            threads=config.threads,
            watcher=self.metrics,
        )
        self.metrics.watch(queue=lambda: self.waiting, items=self._items)
        self._look = Every(self.holder.look, seconds=config.watch_seconds) if config.watch_seconds else None

    @property
    def serving(self) -> Serving:
        """Ask once a request: the next call may find another."""
        return self.holder.current

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._batcher)

    def check_ready(self) -> None:
        if self.draining:
            raise Problem(503, "the server is stopping")

    def check_rows(self, rows: int, *, what: str) -> None:
        most = self.config.limits.rows
        if rows > most:
            raise too_large(f"{rows:,} {what} in one request, at most {most:,} are taken; send several requests")

    async def alone(self, call: Callable[[], Any], *, count: int) -> Any:
        return await self._batcher.alone(call, count=count, seconds=self.config.limits.request_seconds)

    async def together(self, call: Callable[[Rows], Outputs], rows: Rows, *, count: int) -> Outputs:
        return await self._batcher.together(call, rows, count=count, seconds=self.config.limits.request_seconds)

    def close(self) -> None:
        """Finishes what waits."""
        if self._look is not None:
            self._look.close()
        self._batcher.close()
        self.holder.close()

    def _items(self) -> float:
        return sum(len(index) for index in self.serving.indexes())
