"""A server as a process: uvicorn with our limits, and an end in order.

SIGTERM or SIGINT: for `drain_seconds` requests are served on, while /ready says 503 and answers ask clients to close;
then no connection is taken, running requests finish, and the process ends with 0. A second signal ends it at once.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from data.errors import UserError
from serve.up.app import make_app
from serve.up.config import Up
from serve.up.house import House
from serve.up.protocol import Connection

log = logging.getLogger("adloom.up")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Drained(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, house: House, started: Callable[[], Any]):
        super().__init__(config)
        self._house, self._started, self._ending = house, started, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends in order with 0, where uvicorn would raise the signal again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for one in SIGNALS:
            loop.add_signal_handler(one, self._end)
        try:
            yield
        finally:
            for one in SIGNALS:
                loop.remove_signal_handler(one)

    def _end(self) -> None:
        if self._ending:
            self.should_exit = self.force_exit = True
            return
        self._ending = self._house.draining = True
        log.warning("stopping: not ready any more, serving on for %g s", self._house.config.drain_seconds)
        asyncio.get_running_loop().call_later(self._house.config.drain_seconds, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def run(config: Up, *, host: str, port: int, say: Callable[[str], Any] = print) -> None:
    """Serves until it is told to stop; port 0 takes a free one. `say` hears where, once requests are welcome."""
    app = make_app(config)
    limits = config.limits
    settings = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("Limited", (Connection,), {"limits": limits}),
        ws="none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=min(limits.connections, 2048),
        timeout_keep_alive=max(1, round(limits.idle_seconds)),
        timeout_graceful_shutdown=max(1, round(config.finish_seconds)),
    )
    house: House = app.state.house
    try:
        bound = settings.bind_socket()
    except SystemExit as error:  # uvicorn's way to say that it could not
        house.close()
        raise UserError(f"cannot listen at {host}:{port}; is the port taken? Choose another with --port") from error
    versions = ", ".join(f"{kind} {version}" for kind, version in house.serving.versions.items())
    where = f"serving {house.serving.name} ({versions}) at http://{host}:{bound.getsockname()[1]}"
    Drained(settings, house=house, started=lambda: say(where)).run(sockets=[bound])
