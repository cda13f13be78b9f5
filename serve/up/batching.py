"""Calls of the device, out of the event loop: a bounded queue, and rows of several requests in one call.

A request that finds the queue empty runs at once. Where others wait, those that call the same function are taken
together, up to `most` rows, after at most `window` seconds; what waits past its deadline is never begun.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from serve.up.errors import Problem

Rows = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


class Watcher(Protocol):
    """What is measured of the queue."""

    def called(self, *, requests: int, rows: int, seconds: float) -> None: ...
    def waited(self, seconds: float) -> None: ...


@dataclass(eq=False)
class Job:
    call: Callable[..., Any]
    rows: Rows | None
    """None: `call` takes nothing and runs by itself."""
    count: int
    future: asyncio.Future
    loop: asyncio.AbstractEventLoop
    put: float
    deadline: float


class Batcher:
    def __init__(self, *, waiting: int, most: int, window: float, threads: int, watcher: Watcher):
        self._waiting, self._most, self._window, self._watcher = waiting, most, window, watcher
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pace = 0.0
        """Seconds a job, lately."""
        self._threads = [threading.Thread(target=self._work, name=f"device-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    async def alone(self, call: Callable[[], Any], *, count: int, seconds: float) -> Any:
        """What `call` returns."""
        return await self._put(call, rows=None, count=count, seconds=seconds)

    async def together(self, call: Callable[[Rows], Outputs], rows: Rows, *, count: int, seconds: float) -> Outputs:
        """Outputs of `rows`, which may be computed among others that the same `call` scores row by row."""
        return await self._put(call, rows=rows, count=count, seconds=seconds)

    def close(self) -> None:
        """Finishes what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    async def _put(self, call: Callable[..., Any], *, rows: Rows | None, count: int, seconds: float) -> Any:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        job = Job(call, rows, count, loop.create_future(), loop, now, now + seconds)
        with self._changed:
            if self._closed:
                raise Problem(503, "the server is stopping", headers={"Retry-After": "1"})
            if len(self._jobs) >= self._waiting:
                later = max(1, math.ceil(self._pace * len(self._jobs)))
                reason = f"{len(self._jobs)} requests wait already; come back in {later} s"
                raise Problem(429, reason, headers={"Retry-After": str(later)})
            self._jobs.append(job)
            self._changed.notify_all()  # one alone could wake a call that gathers and leave an idle one asleep
        try:
            return await asyncio.wait_for(job.future, seconds)
        except TimeoutError as error:
            raise Problem(504, f"no answer within {seconds:g} s; send fewer rows, or come back later") from error

    def _work(self) -> None:
        while batch := self._next():
            begun = time.monotonic()
            for job in batch:
                self._watcher.waited(begun - job.put)
            results = _run(batch)
            seconds = time.monotonic() - begun
            self._pace += 0.1 * (seconds / len(batch) - self._pace)
            self._watcher.called(requests=len(batch), rows=sum(j.count for j in batch), seconds=seconds)
            for loop in {job.loop for job in batch}:
                mine = [(j, r) for j, r in zip(batch, results, strict=True) if j.loop is loop]
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_deliver, mine)

    def _next(self) -> list[Job]:
        """The jobs of one call; none when the queue is closed and empty."""
        with self._changed:
            while True:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return []
                first = self._jobs.popleft()
                if first.future.done() or first.deadline < time.monotonic():
                    continue
                if first.rows is None:
                    return [first]
                batch, rows = [first], first.count
                rows += self._gather(batch, rows=rows)
                until = time.monotonic() + self._window
                # Alone in the queue: it goes at once, and what comes meanwhile is the next call's.
                while len(batch) > 1 and rows < self._most and not self._closed:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                    rows += self._gather(batch, rows=rows)
                return batch

    def _gather(self, batch: list[Job], *, rows: int) -> int:
        """Moves to the batch what waits for the same call and has room."""
        taken = 0
        rest: list[Job] = []
        for job in self._jobs:
            same = job.rows is not None and job.call == batch[0].call
            if same and not job.future.done() and rows + taken + job.count <= self._most:
                batch.append(job)
                taken += job.count
            else:
                rest.append(job)
        if taken:
            self._jobs.clear()
            self._jobs.extend(rest)
        return taken


def _run(batch: list[Job]) -> list[Any]:
    """Results, or the exception that stands for one."""
    if len(batch) == 1:
        return [_one(batch[0])]
    arrays = [job.rows or {} for job in batch]
    try:
        outputs = batch[0].call({name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]})
    except Exception:  # whoever's rows are at fault must not fail the others
        return [_one(job) for job in batch]
    ends = np.cumsum([job.count for job in batch])
    return [
        {name: array[end - job.count : end] for name, array in outputs.items()}
        for job, end in zip(batch, ends.tolist(), strict=True)
    ]


def _one(job: Job) -> Any:
    try:
        return job.call() if job.rows is None else job.call(job.rows)
    except Exception as error:  # raised again where the result is awaited
        return error


def _deliver(results: list[tuple[Job, Any]]) -> None:
    for job, result in results:
        if job.future.done():  # timed out, or its client went away
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
