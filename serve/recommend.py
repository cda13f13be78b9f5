"""The best unseen items of each user, by any run or artefact that ranks a whole catalogue from one sequence."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import UserError
from data.features import FIRST, Features
from serve.artifact import is_artifact, load
from serve.forward import Forward
from serve.histories import Histories, chosen, histories_of, of_folder
from serve.progress import Rows, Say
from serve.signature import Step
from train.metrics.ranks import NO_ITEM, top_k

CELLS = 1 << 24  # scores of a block of users


@dataclass(frozen=True)
class Recommended:
    users: int
    items: int


class Ranker:
    """A model's forward, and the sequence that it reads: its name, its places and its ids."""

    def __init__(self, forward: Forward, *, features: Features, path: Path):
        sequences = [f for f in features if f.kind == "sequence" and f.size]
        more = sorted(set(forward.inputs) - {n for f in sequences[:1] for n in (f.name, f"{f.name}/length")})
        if not sequences or more:
            wanted = f"also reads {', '.join(more)}" if sequences else "reads no sequence of ids"
            raise UserError(f"{path} {wanted}: recommend serves models of one sequence of ids")
        self.forward, self.path = forward, path
        self.name, self.length, self.size = sequences[0].name, sequences[0].max_len, sequences[0].size
        self.outputs = forward.outputs()
        if not {"scores", "item"} & set(self.outputs):
            raise UserError(f"{path} ranks no whole catalogue: recommend serves next-item models")

    def best(self, histories: Histories, rows: np.ndarray, *, order: np.ndarray, k: int) -> np.ndarray:
        """Ids [b, k] of the rows of the histories."""
        past, count = histories.newest(rows, length=self.length)
        found = self.forward({self.name: past, f"{self.name}/length": count})
        seen = [histories.of(row) for row in rows]
        if "scores" in found:
            return best_scored(found["scores"], seen, order=order, k=k)
        listed = best_listed(found["item"], seen, k=k)
        short = np.flatnonzero((listed == NO_ITEM).any(axis=1))
        if len(short):
            raise UserError(
                f"{self.path} lists {found['item'].shape[1]} items, fewer than {k} of which are new to user "
                f"{histories.users[rows[short[0]]]}; lower --k, or export a run with more in task.top_k"
            )
        return listed


def recommend(
    model: Path,
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
    ranker, histories = _open(model, data=data, step=step)
    rows = chosen(users, histories=histories)
    _check(histories, rows, k=k, size=ranker.size)
    order = histories.order(ranker.size)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file, Rows("recommend", total=len(rows), say=say) as progress:
            for block in _blocks(rows, size=ranker.forward.max_batch):
                best = ranker.best(histories, block, order=order, k=k)
                for row, items in zip(block.tolist(), (best - histories.shift).tolist(), strict=True):
                    file.write(" ".join(map(str, (histories.users[row], *items))) + "\n")
                progress.advance(len(block))
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return Recommended(users=len(rows), items=k)


def best_scored(scores: np.ndarray, seen: list[np.ndarray], *, order: np.ndarray, k: int) -> np.ndarray:
    """Ids [b, k]; equal scores go by `order`, so that no rank hangs on an id's number."""
    allowed = np.ones(scores.shape, bool)
    allowed[:, :FIRST] = False
    for row, items in enumerate(seen):
        allowed[row, items] = False
    return order[top_k(scores[:, order], allowed=allowed[:, order], k=k)]


def best_listed(listed: np.ndarray, seen: list[np.ndarray], *, k: int) -> np.ndarray:
    """The first k of each row's list that are items and were not seen; NO_ITEM where the list is too short."""
    found = np.full((len(listed), k), NO_ITEM, np.int64)
    for row, items in enumerate(listed):
        kept = items[(items >= FIRST) & ~np.isin(items, seen[row])][:k]
        found[row, : len(kept)] = kept
    return found


def _open(model: Path, *, data: Path | None, step: Step) -> tuple[Ranker, Histories]:
    if is_artifact(model):
        if data is None:
            raise UserError(f"{model} is exported and has no data of its own: name a sequence folder with --data")
        artifact = load(model, max_batch=1024)
        return Ranker(artifact.forward, features=artifact.features, path=model), of_folder(data)
    from serve.trained import Trained  # an artefact is served without modules/

    trained = Trained(model, step=step)
    size = max((f.size for f in trained.features if f.kind == "sequence"), default=1)
    most = max(8, min(1024, CELLS // max(size, 1)))
    forward = Forward(trained.predict, weights=trained.weights, inputs=trained.inputs(), max_batch=most)
    histories = of_folder(data) if data is not None else histories_of(trained)
    return Ranker(forward, features=trained.features, path=model), histories


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
