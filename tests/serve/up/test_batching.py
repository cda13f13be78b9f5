"""The queue before the device: what is joined, refused, late or at fault."""

import asyncio
import threading
import time

import numpy as np
import pytest

from data.errors import UserError
from serve.up.batching import Batcher
from serve.up.errors import Problem
from tests.serve.up.conftest import until


class Seen:
    def __init__(self):
        self.calls, self.waits = [], []

    def called(self, *, requests, rows, seconds):
        self.calls.append((requests, rows))

    def waited(self, seconds):
        self.waits.append(seconds)


class Device:
    """Doubles rows; waits to be let go, so that a queue forms."""

    def __init__(self):
        self.go, self.sizes, self.begun = threading.Event(), [], threading.Event()

    def __call__(self, rows):
        self.begun.set()
        self.go.wait(10)
        self.sizes.append(len(rows["x"]))
        if (rows["x"] < 0).any():
            raise UserError("negative")
        return {"y": rows["x"] * 2}


@pytest.fixture
def seen():
    return Seen()


def make(seen, **options):
    return Batcher(**{"waiting": 100, "most": 8, "window": 0.0, "threads": 1, **options}, watcher=seen)


def rows(*values):
    return {"x": np.array(values)}


async def ask(batcher, device, *values, seconds=5.0):
    done = await batcher.together(device, rows(*values), count=len(values), seconds=seconds)
    return done["y"].tolist()


def test_what_waits_is_joined_and_each_gets_its_own(seen):
    batcher, device = make(seen), Device()

    async def run():
        first = asyncio.create_task(ask(batcher, device, 1))
        await until(device.begun.is_set)
        others = [asyncio.create_task(ask(batcher, device, i, -0 + i)) for i in (2, 3, 4, 5, 6)]
        await until(lambda: len(batcher) == 5)
        device.go.set()
        return await asyncio.gather(first, *others)

    found = asyncio.run(run())
    batcher.close()
    assert found == [[2], [4, 4], [6, 6], [8, 8], [10, 10], [12, 12]]
    assert device.sizes == [1, 8, 2]  # alone, up to `most`, the rest
    assert seen.calls == [(1, 1), (4, 8), (1, 2)] and len(seen.waits) == 6


def test_only_rows_of_one_function_are_joined(seen):
    batcher, device, other = make(seen), Device(), Device()
    other.go.set()

    async def run():
        first = asyncio.create_task(ask(batcher, device, 1))
        await until(device.begun.is_set)
        waiting = [asyncio.create_task(ask(batcher, d, 2)) for d in (device, other, device)]
        waiting.append(asyncio.create_task(batcher.alone(lambda: "alone", count=1, seconds=5)))
        await until(lambda: len(batcher) == 4)
        device.go.set()
        return await asyncio.gather(first, *waiting)

    assert asyncio.run(run()) == [[2], [4], [4], [4], "alone"]
    batcher.close()
    assert (device.sizes, other.sizes) == ([1, 2], [1])


def test_a_fault_is_its_own_request_s_alone(seen):
    batcher, device = make(seen), Device()

    async def run():
        first = asyncio.create_task(ask(batcher, device, 1))
        await until(device.begun.is_set)
        others = [asyncio.create_task(ask(batcher, device, i)) for i in (2, -3, 4)]
        await until(lambda: len(batcher) == 3)
        device.go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, good, bad, also = asyncio.run(run())
    batcher.close()
    assert (first, good, also) == ([2], [4], [8])
    assert isinstance(bad, UserError)


def test_a_full_queue_answers_429_with_a_time_to_come_back(seen):
    batcher, device = make(seen, waiting=2), Device()

    async def run():
        held = [asyncio.create_task(ask(batcher, device, 0))]
        await until(device.begun.is_set)
        held += [asyncio.create_task(ask(batcher, device, i)) for i in (1, 2)]
        await until(lambda: len(batcher) == 2)
        with pytest.raises(Problem, match="2 requests wait already") as raised:
            await ask(batcher, device, 3)
        device.go.set()
        await asyncio.gather(*held)
        return raised.value

    problem = asyncio.run(run())
    batcher.close()
    assert problem.status == 429 and int(problem.headers["Retry-After"]) >= 1


def test_what_is_late_is_answered_504_and_never_begun(seen):
    batcher, device = make(seen), Device()

    async def run():
        first = asyncio.create_task(ask(batcher, device, 1))
        await until(device.begun.is_set)
        with pytest.raises(Problem) as raised:
            await ask(batcher, device, 2, seconds=0.05)
        device.go.set()
        await first
        return raised.value

    problem = asyncio.run(run())
    batcher.close()
    assert problem.status == 504 and "no answer within 0.05 s" in problem.message
    assert device.sizes == [1]


def test_what_is_late_is_not_begun_though_the_busy_loop_has_not_noticed(seen):
    batcher, device = make(seen), Device()

    async def run():
        first = asyncio.create_task(ask(batcher, device, 1))
        await until(device.begun.is_set)
        late = asyncio.create_task(ask(batcher, device, 2, seconds=0.05))
        await until(lambda: len(batcher) == 1)
        time.sleep(0.1)  # the loop stands still, so that no time-out marks the request
        device.go.set()
        while len(batcher):
            time.sleep(0.001)
        with pytest.raises(Problem, match="no answer within"):
            await late
        await first

    asyncio.run(run())
    batcher.close()
    assert device.sizes == [1]


def test_alone_in_the_queue_goes_at_once_and_others_wait_for_the_window(seen):
    batcher, device = make(seen, window=0.3), Device()

    async def run():
        begun = time.monotonic()
        device.go.set()
        await ask(batcher, device, 1)
        at_once = time.monotonic() - begun
        device.go.clear()
        device.begun.clear()
        first = asyncio.create_task(ask(batcher, device, 1))
        await until(device.begun.is_set)
        others = [asyncio.create_task(ask(batcher, device, i)) for i in (2, 3)]
        await until(lambda: len(batcher) == 2)
        device.go.set()
        await first
        await asyncio.sleep(0.05)
        others.append(asyncio.create_task(ask(batcher, device, 4)))  # comes within the window
        await asyncio.gather(*others)
        return at_once

    assert asyncio.run(run()) < 0.25
    batcher.close()
    assert device.sizes == [1, 1, 3]


def test_closing_finishes_what_waits_and_takes_no_more(seen):
    batcher, device = make(seen), Device()

    async def run():
        held = [asyncio.create_task(ask(batcher, device, 1))]
        await until(device.begun.is_set)
        held.append(asyncio.create_task(ask(batcher, device, 2)))
        await until(lambda: len(batcher) == 1)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await until(lambda: batcher._closed)
        with pytest.raises(Problem, match="the server is stopping"):
            await ask(batcher, device, 3)
        device.go.set()
        await closing
        return await asyncio.gather(*held)

    assert asyncio.run(run()) == [[2], [4]]
