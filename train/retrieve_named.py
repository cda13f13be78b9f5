"""Retrieval between two predictions chosen by name: any side asks, any side is found."""

from collections.abc import Mapping

import chz
import numpy as np

from data.errors import UserError
from train.evaluators import Evaluation, Predict, Retrieve
from train.progress import RowsDone


@chz.chz
class RetrieveNamed(Retrieve):
    """As `Retrieve`, with prediction `asks` of the source as the query and `finds` of the corpus as the item.

    With a corpus of class names, `target` the true class and `key` the class of a name, recall@1 is the accuracy of
    classification by the nearest name, without training for it.
    """

    asks: str = "query"
    finds: str = "item"

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        def renamed(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            found = predict(batch)
            both = {side: found[name] for side, name in (("query", self.asks), ("item", self.finds)) if name in found}
            if not both:
                raise UserError(f"the model predicts {', '.join(found)}, and neither {self.asks!r} nor {self.finds!r}")
            return both

        return super().run(renamed, progress=progress)
