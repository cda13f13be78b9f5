"""The best unseen items of each user, by any run that scores a whole catalogue."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import UserError
from data.features import FIRST
from serve.forward import Forward
from serve.histories import Histories, chosen, histories_of
from serve.progress import Rows, Say
from serve.signature import Step
from serve.trained import Trained
from train.metrics.ranks import top_k

CELLS = 1 << 24  # scores of a block of users


@dataclass(frozen=True)
class Recommended:
    users: int
    items: int


def recommend(
    workdir: Path,
    *,
    output: Path,
    users: Path | None = None,
    k: int = 20,
    data: Path | None = None,
    step: Step = "best",
    say: Say | None = None,
) -> Recommended:
    """Writes `user item item ...` a line, best first, without what the user has seen; the file appears when whole.

    The model reads the newest events that it has places for; every event of the data counts as seen.
    """
    trained = Trained(workdir, step=step)
    histories = histories_of(trained, data=data)
    rows = chosen(users, histories=histories)
    name, length, size = _history(trained)
    _check(histories, rows, k=k, size=size)
    forward = Forward(
        trained.predict, weights=trained.weights, inputs=trained.inputs(), max_batch=max(8, min(1024, CELLS // size))
    )
    if "scores" not in forward.outputs():
        raise UserError(f"{workdir} scores no whole catalogue: recommend serves next-item models")
    order = histories.order(size)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file, Rows("recommend", total=len(rows), say=say) as progress:
            for block in _blocks(rows, size=forward.max_batch):
                past, count = histories.newest(block, length=length)
                scores = forward({name: past, f"{name}/length": count})["scores"]
                best = _best(scores, [histories.of(row) for row in block], order=order, k=k)
                for row, items in zip(block.tolist(), (best - histories.shift).tolist(), strict=True):
                    file.write(" ".join(map(str, (histories.users[row], *items))) + "\n")
                progress.advance(len(block))
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return Recommended(users=len(rows), items=k)


def _best(scores: np.ndarray, seen: list[np.ndarray], *, order: np.ndarray, k: int) -> np.ndarray:
    """Ids [b, k]; equal scores go by `order`, so that no rank hangs on an id's number."""
    allowed = np.ones(scores.shape, bool)
    allowed[:, :FIRST] = False
    for row, items in enumerate(seen):
        allowed[row, items] = False
    return order[top_k(scores[:, order], allowed=allowed[:, order], k=k)]


def _history(trained: Trained) -> tuple[str, int, int]:
    """Name, places and ids of the sequence that the model reads."""
    sequences = [f for f in trained.features if f.kind == "sequence" and f.size]
    inputs = set(trained.inputs())
    more = sorted(inputs - {n for f in sequences[:1] for n in (f.name, f"{f.name}/length")})
    if not sequences or more:
        wanted = f"also reads {', '.join(more)}" if more else "reads no sequence of ids"
        raise UserError(f"{trained.path} {wanted}: recommend serves models of one sequence of ids")
    return sequences[0].name, sequences[0].max_len, sequences[0].size


def _check(histories: Histories, rows: np.ndarray, *, k: int, size: int) -> None:
    highest = int(histories.items.max(initial=0))
    if highest >= size:
        raise UserError(
            f"the data have item {highest - histories.shift}, the model knows {size - FIRST} items: "
            "name the data of its training, or train anew"
        )
    for row in rows:
        seen = len(np.unique(histories.of(row)))
        if k > size - FIRST - seen:
            raise UserError(
                f"user {histories.users[row]} has seen {seen:,} of {size - FIRST:,} items, which leaves fewer than "
                f"{k:,}; lower --k to {size - FIRST - seen}"
            )


def _blocks(rows: np.ndarray, *, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
