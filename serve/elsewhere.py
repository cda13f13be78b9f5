"""Parts of a run written by the workers of a Ray cluster: the same spans, the same bytes, and the same resume.

The command that began the run holds its lock, counts rejected rows over the whole and joins the parts; a worker opens
model and input once and writes one span after another. All machines see input, model and output under the same paths.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from data.cluster import Cluster
from data.errors import UserError
from serve.forward import Forward
from serve.inputs import Input
from serve.parts import Parts, differing
from serve.score import Job


@dataclass(frozen=True)
class Opened:
    """What a run computes: the model, its rows, and the account of what they are made from."""

    forward: Forward
    rows: Input
    account: Mapping[str, Any]


@dataclass(frozen=True)
class Workers:
    """`open` is called once in each worker, and must pickle."""

    cluster: Cluster
    open: Callable[[], Opened]

    def write(self, parts: Parts, *, todo: Mapping[int, Any], batch: int) -> Generator[int, None, None]:
        make = partial(_make, self.open, parts=parts, batch=batch)
        with closing(self.cluster.map(make, pieces=list(todo.items()))) as done:
            for (index, _), _ in done:
                yield index


def _make(open: Callable[[], Opened], *, parts: Parts, batch: int) -> Callable[[tuple[int, Any]], None]:
    opened = open()
    changed = differing(parts.made_from, opened.account)
    if changed:
        raise UserError(
            f"a worker sees other {', '.join(changed)} than the command: a file has changed since it began, or is "
            "another on the worker's machine; share the folders and run again"
        )
    job = Job(opened.forward, rows=opened.rows, parts=parts, batch=batch)
    return lambda piece: job.write(dict([piece]))
