"""Nearest neighbours as pictures, for the report: a row per query, its neighbours in order, the right ones marked."""

import base64
import io

import chz
import numpy as np
from PIL import Image

from data.errors import UserError
from train.evaluators import Evaluation, Evaluator, Predict
from train.metrics.base import Curve, Metric, column
from train.metrics.ranks import top_k
from train.progress import RowsDone

SHEET = "sheet"
"""Kind of the curve that carries the pictures to the report."""


@chz.chz
class ContactSheet(Evaluator):
    """Shows what lies next to `rows` queries, evenly spread over the source; a query's own row is not a neighbour of
    itself where both sides are one prediction. A query is shown by its picture, its words, or both.

    "right" is the share of the neighbours shown that have the query's key. A row without a vector neither asks nor is
    found, and a picture of several frames is shown by the one in the middle.
    """

    metrics: tuple[Metric, ...] = ()
    query: str = chz.field(default="query", doc="prediction that asks")
    item: str = chz.field(default="item", doc="prediction that is found")
    key: str = chz.field(default="item", doc="array that is equal for rows that show the same thing")
    image: str = chz.field(default="image", doc="array with the pictures of what is found")
    asked: str | None = chz.field(default=None, doc="array with the pictures of who asks; None: shown by words alone")
    words: str | None = chz.field(default="title", doc="array with the words of who asks; None: not shown")
    count: int = chz.field(default=8, doc="queries shown")
    nearest: int = chz.field(default=8, doc="neighbours of each")
    most: int = chz.field(default=4096, doc="rows of the source that are looked at, the first")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        pictures, vectors, keys, texts = self._gather(predict, progress=progress)
        queries, items = vectors
        able = np.flatnonzero((queries != 0).any(axis=1))
        there = (items != 0).any(axis=1)
        if not len(able) or not there.any():
            raise UserError(f"ContactSheet: no row has a vector of {self.query!r}, or none of {self.item!r}")
        chosen = able[np.unique(np.linspace(0, len(able) - 1, self.count).astype(int))]
        scores = queries[chosen].astype(np.float64) @ items.T.astype(np.float64)
        allowed = np.broadcast_to(there, scores.shape).copy()
        if self.query == self.item:
            allowed[np.arange(len(chosen)), chosen] = False
        top = top_k(scores, allowed=allowed, k=self.nearest)
        shown, right = [], []
        for row, near, score in zip(chosen.tolist(), top, scores, strict=True):
            near = near[near >= 0]
            same = keys[near] == keys[row]
            found = [
                {"image": _png(pictures[0][n]), "right": bool(hit), "score": float(score[n])}
                for n, hit in zip(near, same, strict=True)
            ]
            asks = None if pictures[1] is None else _png(pictures[1][row])
            shown.append({"text": texts[row] if texts else "", "image": asks, "found": found})
            right.append(same)
        curve: Curve = {"kind": SHEET, "rows": shown}
        return Evaluation(
            values={"right": float(np.concatenate(right).mean())}, curves={"nearest": curve}, rows=len(keys)
        )

    def _gather(self, predict: Predict, *, progress: RowsDone | None):
        """Pictures of both sides, vectors of both, keys, and the words of who asks."""
        opened = self.source.make()
        spell = getattr(opened, "spell", None)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "asked", "query", "item", "key")}
        texts: list[str] = []
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            parts["image"].append(column(batch, self.image))
            if self.asked is not None:
                parts["asked"].append(column(batch, self.asked))
            parts["query"].append(column(predictions, self.query, what="predictions"))
            parts["item"].append(column(predictions, self.item, what="predictions"))
            parts["key"].append(column(batch, self.key))
            if self.words is not None and spell is not None:
                lengths = batch[f"{self.words}/length"]
                texts += [spell(t[:n]) for t, n in zip(column(batch, self.words), lengths, strict=True)]
            if sum(map(len, parts["key"])) >= self.most:
                break
        whole = {name: np.concatenate(part) for name, part in parts.items() if part}
        return (whole["image"], whole.get("asked")), (whole["query"], whole["item"]), whole["key"], texts


def _png(picture: np.ndarray) -> str:
    """Bytes of a page, of one picture or of the middle frame of several."""
    if picture.ndim == 4:
        picture = picture[len(picture) // 2]
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(out, format="PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()
