"""Pieces of work mapped over the workers of a Ray cluster, each piece done once though workers may die.

A piece is a number or a name. Rows never travel through Ray: a worker reads and writes files that every machine of the
cluster sees under the same path, and what it opens (a model, vocabularies) it opens once.

Plain actors and not Ray Data, tried both: Ray Data hands a worker the next pieces while it is still at one, restarts a
worker that dies of its piece for ever, and would carry rows between its operators, where order and bytes are its own to
choose. Here a piece that was under way when its worker died goes to another worker, three times at most.
"""

import argparse
import contextlib
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data.errors import UserError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

CONNECT_SECONDS = 10.0
START_SECONDS = 120.0
"""How long nothing may happen before the first worker has started."""
MOST_DEATHS = 3
"""Workers that one piece may take with it: more are no accident."""
STORE_BYTES = 100 << 20
"""Of a cluster of our own: what travels are numbers and names."""


@dataclass(frozen=True)
class Cluster:
    """`address` is host:port of a running cluster's head; without it one is started on this machine, and ended."""

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"{self.workers} workers do no work; --workers takes a number from 1")

    def map(
        self, make: Callable[[], Callable[[Piece], Result]], *, pieces: Sequence[Piece]
    ) -> Generator[tuple[Piece, Result], None, None]:
        """Pieces and what became of them, as they are done. `make` runs once in each worker, and must pickle."""
        if not pieces:
            return
        with self.connected() as ray:
            most = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            team = _Team(ray, make=make, size=min(most, len(pieces)))
            try:
                yield from team.work(pieces)
            finally:
                team.end()

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Ray, for `map` within the block; a program that computes enters before, since Ray forks as it starts."""
        ray = _ray()
        if self.address is not None:
            _probe(self.address)
        if ray.is_initialized():
            yield ray
            return
        _start(ray, workers=self.workers, address=self.address)
        try:
            yield ray
        finally:
            ray.shutdown()


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The options by which a command is told where its work is done."""
    group = parser.add_argument_group("beyond one process")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: workers of a cluster (default: %(default)s)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="ray: at most so many (default: one for each CPU)")
    group.add_argument(
        "--address", metavar="HOST:PORT", help="ray: the head of a running cluster (default: one on this machine)"
    )


def chosen_engine(arguments: argparse.Namespace) -> Cluster | None:
    """The cluster that the options of `add_engine` ask for; None for this process."""
    if arguments.engine == "ray":
        return Cluster(workers=arguments.workers, address=arguments.address)
    given = [name for name in ("workers", "address") if getattr(arguments, name) is not None]
    if given:
        raise UserError(f"--{given[0]} is of a cluster; go with --engine ray, or leave it out")
    return None


class _Worker:
    """In a process of its own. Opens when the first piece comes, so that what goes wrong there is said of a piece."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], *, folder: Path):
        self._make, self._folder = make, folder
        self._work: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Answers once the process is there."""

    def do(self, piece: Any) -> Any:
        if self._work is None:
            try:
                os.chdir(self._folder)
            except OSError as error:
                raise UserError(
                    f"worker {socket.gethostname()} does not see {self._folder}; share the folder among all machines"
                ) from error
            self._work = self._make()
        return self._work(piece)


class _Team:
    """Workers of which each has at most one piece; one that dies is replaced."""

    def __init__(self, ray: Any, *, make: Callable[[], Callable[[Any], Any]], size: int):
        self._ray, self._make = ray, make
        self._actors: set[Any] = set()
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Any]] = {}
        for _ in range(size):
            self._hire()

    def work(self, pieces: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        waiting, left, deaths = deque(range(len(pieces))), len(pieces), Counter[int]()
        while left:
            while waiting and self._idle:
                free, taken = self._idle.pop(), waiting.popleft()
                self._running[free.do.remote(pieces[taken])] = (free, taken)
            actor, number, result, death = self._next()
            if death is None:
                self._idle.append(actor)
                if number is not None:
                    left -= 1
                    yield pieces[number], result
                continue
            self._actors.discard(actor)
            self._hire()
            if number is not None:
                waiting.appendleft(number)
                deaths[number] += 1
                if deaths[number] >= MOST_DEATHS:
                    raise UserError(
                        f"{MOST_DEATHS} workers died at one piece of the work ({pieces[number]}): out of memory, or "
                        f"killed; take a smaller --batch or larger machines ({_first(death)})"
                    ) from death

    def _next(self) -> tuple[Any, int | None, Any, Exception | None]:
        """(worker, its piece, result, how it died) of what is done next; no piece where it has just started."""
        from ray.exceptions import RayActorError, RayTaskError

        reference = self._wait()
        actor, number = self._running.pop(reference)
        try:
            return actor, number, self._ray.get(reference), None
        except RayActorError as error:
            return actor, number, None, error
        except RayTaskError as error:
            if isinstance(error.cause, UserError | OSError):
                raise error.cause from error
            raise

    def _wait(self) -> Any:
        begun = time.monotonic()
        while True:
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=5)
            if ready:
                return ready[0]
            at_work = any(number is not None for _, number in self._running.values())
            if not at_work and time.monotonic() - begun > START_SECONDS:
                free = self._ray.available_resources().get("CPU", 0)
                raise UserError(
                    f"no worker has started for {START_SECONDS:.0f} s: the cluster has {free:.0f} free CPUs, and a "
                    "worker takes one; wait for its other jobs, or add machines"
                )

    def _hire(self) -> None:
        actor = self._ray.remote(_Worker).options(num_cpus=1, max_restarts=0).remote(self._make, folder=Path.cwd())
        self._actors.add(actor)
        self._running[actor.ready.remote()] = (actor, None)

    def end(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: nothing of ours is reported
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray, which is not installed; pip install 'adloom[ray]'") from error
    return ray


def _start(ray: Any, *, workers: int | None, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    for last in (False, True):
        try:
            if address is None:
                # As Ray counts them: more workers than cores may share this machine.
                cpus = max(workers or 0, os.cpu_count() or 1)
                ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
            else:
                ray.init(address=address, **quiet)
            return
        except Exception as error:  # a plain Exception where a machine is too busy for half a minute, others elsewhere
            ray.shutdown()
            if last or address is not None:
                what = "no Ray cluster starts here" if address is None else f"the cluster at {address} is closed to us"
                raise UserError(f"{what}: {_first(error)}") from error


def _probe(address: str) -> None:
    """Ray waits for a silent address for minutes, and then aborts the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise UserError(f"--address {address} is not host:port, such as 10.0.0.1:6379, of a Ray cluster's head")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error}); start its head with ray start --head --port={port}, "
            "or leave --address out for workers on this machine"
        ) from error


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
