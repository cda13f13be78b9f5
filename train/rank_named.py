"""Ranking by a prediction chosen by name."""

from collections.abc import Mapping

import chz
import numpy as np

from train.evaluators import Evaluation, Predict, RankItems
from train.progress import RowsDone


@chz.chz
class RankNamed(RankItems):
    """As `RankItems`, by prediction `scores` [b, V], whose first two columns are no candidates."""

    scores: str = chz.field(doc="prediction, such as interests")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        def renamed(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            return {"scores": predict(batch)[self.scores]}

        return super().run(renamed, progress=progress)
