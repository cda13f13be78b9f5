"""People who do some of what they do elsewhere: products watched in videos, which the shop knows as videos alone.

Rows are those of `MallQueries`. Of the newest actions of a person a share was done elsewhere, the same for good, drawn
by person and product: it stands in `watched`, whose ids are of videos, and `history` has the others. Who the person is,
the shop does not know either, so that what is known of them is what they did.
"""

import chz
import numpy as np

from data.features import FIRST, Categorical, Features, Sequence
from data.hashing import mix
from data.mall.sources import MallQueries
from data.sources import Rows, Source
from data.transforms.expand_history import ExpandHistory

HIDDEN = ("user", "history_category")
"""The second says what was watched by its place."""


@chz.chz
class MallElsewhere(MallQueries):
    share: float = chz.field(default=0.7, doc="of a person's actions, watched as videos; 0: all is done in the shop")
    watched: bool = chz.field(default=False, doc="videos are a feature too, for towers that learn a table of them")
    near: str | None = chz.field(
        default=None, doc=".npy with the products nearest to each video, which then stand in `history` (ExpandHistory)"
    )

    @chz.validate
    def _is_a_share(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; give it from 0 to 1")

    def make(self) -> "Elsewhere":  # type: ignore[override]
        return Elsewhere(self, super().make())


class Elsewhere:
    def __init__(self, config: MallElsewhere, source: Source):
        self._config, self._source = config, source
        history = source.features["history"]
        assert isinstance(history, Sequence)
        videos = Categorical(name="video", rows=history.size, role="user")
        watched = Sequence(name="watched", role="user", of=videos, length=history.max_len)
        self.features: Features = source.features.without(*HIDDEN).plus(watched)
        self._expand = None if config.near is None else ExpandHistory(path=config.near).bind(self)
        if not config.watched:
            self.features = self.features.without("watched")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = self._source.take(indices)  # type: ignore[attr-defined]
        config = self._config
        items, there = rows["history"], rows["history"] >= FIRST
        who = mix(rows["user"].astype(np.uint64) + (np.uint64(config.mall.seed) << np.uint64(32)))
        away = there & (mix(who[:, None] ^ items.astype(np.uint64)) / 2.0**64 < config.share)
        for name, part in (("history", there & ~away), ("watched", away)):
            rows[name], rows[f"{name}/length"] = _packed(items, part)
        if self._expand is not None:
            rows = self._expand(rows, rng=np.random.default_rng(0))  # it draws nothing
        hidden = HIDDEN if config.watched else (*HIDDEN, "watched")
        return {name: column for name, column in rows.items() if name.split("/")[0] not in hidden}


def _packed(items: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those to keep, in their order, from the left."""
    order = np.argsort(~keep, axis=1, kind="stable")
    count = keep.sum(axis=1).astype(np.int32)
    return np.take_along_axis(np.where(keep, items, 0), order, axis=1), count
