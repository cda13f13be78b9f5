"""What people would get out of the videos that a model puts first, were all shown without place or length in it."""

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST
from data.mall.config import Mall
from data.mall.truth import auc
from data.mall.watches import SHORT, Feed, MallWatches, liking, new_videos, seconds, viewers
from data.pipeline import VALID
from data.sources import SourceConfig
from train.evaluators import Evaluation, Evaluator, Predict
from train.metrics.base import column
from train.progress import RowsDone
from train.recommend import RecommendVideos, tastes

TOP = 10


@chz.chz
class Replay(Evaluator):
    """Of a tower of (user, video, place, seconds): `source` is a `MallReplay`.

    "deep_view": chance of watching half and more, mean over the first ten of each person, and "new/deep_view" over the
    first ten of the videos that no log has shown; "random/..." is that of a video drawn by chance, "possible/..." that
    of who knows everyone's mind. "short_share": videos under 15 s among the first ten, "random/short_share" among all.
    "seconds_correlation": of score and length, mean over people. "logged/auc": of completion in the biased log.
    """

    mall: Mall = chz.field(default_factory=Mall)
    feed: Feed = chz.field(default_factory=Feed)
    logged: SourceConfig = chz.field(default_factory=lambda: MallWatches(split="valid"), doc="rows of the biased log")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        batch, score = self._scores(self.source, predict, progress=progress)
        people = len(np.unique(batch["user"]))
        grid = {name: batch[name].reshape(people, -1) for name in ("true_deep", "true_seconds", "item")}
        fresh = new_videos(self.mall)[grid["item"][0] - FIRST]
        found = of_ranking(
            score.reshape(people, -1), truth=grid["true_deep"], length=grid["true_seconds"][0], fresh=fresh
        )
        log, by_log = self._scores(self.logged, predict)
        return Evaluation(values={**found, "logged/auc": auc(log["complete"], score=by_log)}, rows=len(score))

    def _scores(self, source: SourceConfig, predict: Predict, *, progress: RowsDone | None = None):
        rows, scores = [], []
        for batch, predictions in self.rows(source, predict, progress=progress):
            rows.append(batch)
            scores.append(column(predictions, "score", what="predictions"))
        return {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}, np.concatenate(scores)


@chz.chz
class ReplayByContent(RecommendVideos):
    """The same of a model of content, for whom a person is what they looked at; `source` is a `MallShoppers`."""

    mall: Mall = chz.field(default_factory=Mall)
    feed: Feed = chz.field(default_factory=Feed)
    people: int = chz.field(default=200, doc="as of MallReplay")
    logged: SourceConfig = chz.field(default_factory=lambda: MallWatches(split="valid"), doc="rows of the biased log")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        key, items = self._vectors(self.items, self.item, predict)
        shown, videos = self._vectors(self.videos, self.video, predict, progress=progress)
        source = self.source.make()
        batch = {**source.take(np.arange(len(source))), VALID: np.ones(len(source), bool)}
        users, first = np.unique(batch["user"], return_index=True)
        taste = tastes(self, {name: value[first] for name, value in batch.items()}, key=key, items=items)
        people = viewers(self.mall, most=self.people)
        if absent := np.setdiff1d(people, users).tolist():
            raise UserError(f"no history of {len(absent)} viewers, such as {absent[0]}: set source.most=None")
        mine, places = taste[np.searchsorted(users, people)], shown - FIRST
        found = of_ranking(
            mine @ videos.T,
            truth=liking(self.mall, people=people, items=places, feed=self.feed),
            length=seconds(self.mall, feed=self.feed)[places],
            fresh=new_videos(self.mall)[places],
        )
        return Evaluation(values={**found, "logged/auc": self._logged(users, taste, shown, videos)}, rows=len(people))

    def _logged(self, users: np.ndarray, taste: np.ndarray, shown: np.ndarray, videos: np.ndarray) -> float:
        """Over the log's rows of people whose past is known."""
        log = self.logged.make()
        rows = log.take(np.arange(len(log)))
        at = np.minimum(np.searchsorted(users, rows["user"] - FIRST), len(users) - 1)
        keep = users[at] == rows["user"] - FIRST
        score = np.einsum("nd,nd->n", taste[at[keep]], videos[np.searchsorted(shown, rows["item"][keep])])
        return auc(rows["complete"][keep], score=score)


def of_ranking(score: np.ndarray, *, truth: np.ndarray, length: np.ndarray, fresh: np.ndarray) -> dict[str, float]:
    """`score` and `truth` [people, videos]; of each video its seconds and whether no log has shown it."""
    if fresh.sum() < TOP:
        raise UserError(f"a replay ranks {TOP} of the new videos, of which there are {fresh.sum()}: take a larger mall")
    best = _first(score)
    found = {
        "deep_view": float(np.take_along_axis(truth, best, axis=1).mean()),
        "random/deep_view": float(truth.mean()),
        "possible/deep_view": float(np.take_along_axis(truth, _first(truth), axis=1).mean()),
        "short_share": float((length[best] < SHORT).mean()),
        "random/short_share": float((length < SHORT).mean()),
        "seconds_correlation": float(np.mean([_correlation(row, length) for row in score])),
    }
    some, true = score[:, fresh], truth[:, fresh]
    found["new/deep_view"] = float(np.take_along_axis(true, _first(some), axis=1).mean())
    found["random/new/deep_view"] = float(true.mean())
    return found


def _first(score: np.ndarray) -> np.ndarray:
    return np.argsort(-score, axis=1, kind="stable")[:, :TOP]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    spread = np.sqrt(np.square(a).sum() * np.square(b).sum())
    return float((a * b).sum() / spread) if spread > 0 else 0.0
