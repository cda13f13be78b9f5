"""Recommending by content alone: a person is the mean of what they looked at, an item's other view is what is found."""

import chz
import numpy as np

from data.pipeline import VALID
from data.sources import SourceConfig
from data.splits import column as whole_column
from modules.content.short_video import taste
from train.evaluators import Evaluation, Evaluator, Predict, RankTally, depth
from train.metrics.base import Arrays, column
from train.metrics.ranks import padded, positions, rank_blocks
from train.progress import RowsDone


@chz.chz
class RecommendVideos(Evaluator):
    """Ranks all videos for each person by the products of their past, and by popularity as "popular/<metric>".

    `source` has each person's history (with `<history>_days`, `<history>_click`) and the item whose video is sought.
    """

    items: SourceConfig = chz.field(doc="rows of the products that histories name")
    videos: SourceConfig = chz.field(doc="rows of the videos, by the item each shows")
    history: str = "history"
    target: str = "item"
    key: str = chz.field(default="item", doc="array that names an item in both")
    item: str = chz.field(default="item", doc="prediction of a product")
    video: str = chz.field(default="video", doc="prediction of a video")
    clicks: SourceConfig | None = chz.field(
        default=None, doc="rows of training clicks, which popularity counts; None: popularity is not ranked"
    )
    click: float = chz.field(default=2.0, doc="weight of a click; a view weighs 1")
    half_life: float | None = chz.field(default=14.0, doc="days after which an action weighs half; None: all alike")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        key, items = self._vectors(self.items, self.item, predict)
        shown, videos = self._vectors(self.videos, self.video, predict, progress=progress)
        source = self.source.make()
        batch = {**source.take(np.arange(len(source))), VALID: np.ones(len(source), bool)}
        people = tastes(self, batch, key=key, items=items)
        wanted = positions(padded(batch, self.target), shown)
        total = ranked(self, batch, people, videos, wanted)
        if self.clicks is None:
            return total
        seen = positions(whole_column(self.clicks.make(), self.target), shown)
        often = np.bincount(seen[seen >= 0], minlength=len(shown)).astype(np.float32)[:, None]
        by_count = ranked(self, batch, np.ones((len(people), 1), np.float32), often, wanted)
        return total.plus(by_count.under("popular"))

    def _vectors(
        self, source: SourceConfig, name: str, predict: Predict, *, progress: RowsDone | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each item, in order of its key."""
        keys, vectors = [], []
        for batch, predictions in self.rows(source, predict, progress=progress):
            keys.append(column(batch, self.key))
            vectors.append(column(predictions, name, what="predictions"))
        key, first = np.unique(np.concatenate(keys), return_index=True)
        return key, np.concatenate(vectors)[first]


def tastes(config: RecommendVideos, batch: Arrays, *, key: np.ndarray, items: np.ndarray) -> np.ndarray:
    """A vector per row of the batch, of those of its history that have a vector."""
    past = positions(padded(batch, config.history), key)
    return taste(
        items[np.maximum(past, 0)],
        actions=np.where(column(batch, f"{config.history}_click") > 0, config.click, 1.0),
        days=column(batch, f"{config.history}_days"),
        where=past >= 0,
        half_life=config.half_life,
    ).astype(np.float32)


def ranked(
    evaluator: Evaluator, batch: Arrays, people: np.ndarray, found: np.ndarray, wanted: np.ndarray
) -> Evaluation:
    tally = RankTally(evaluator)
    for rows, ranks in rank_blocks(people, found, wanted, forbidden=None, k=depth(evaluator.metrics)):
        tally.update(ranks, {name: value[rows] for name, value in batch.items()}, catalogue=len(found))
    return tally.evaluation()
