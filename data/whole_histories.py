"""What the rows of a source hold of each user, end to end: for counts, and for recommending after all of it."""

import numpy as np

from data.features import FIRST
from data.sequence_file import SequenceFile
from data.sources import SourceConfig
from data.splits import column

Sequences = tuple[np.ndarray, np.ndarray]
"""Items end to end, and how many each user has."""


def sequences_of(config: SourceConfig, *, history: str = "history", target: str = "target") -> Sequences:
    """Items end to end and how many a row: the history and after it the target, where there is one.

    Of a sequence file all that a row has, however long; of other sources the places that they keep.
    """
    if isinstance(config, SequenceFile):
        return config.sequences()
    source = config.make()
    past, length = column(source, history), column(source, f"{history}/length")
    label = column(source, target) if target in source.features.arrays() else np.zeros(len(past), past.dtype)
    both = np.concatenate([past, np.zeros((len(past), 1), past.dtype)], axis=1)
    both[np.arange(len(past)), length] = label
    lengths = length + (label >= FIRST)
    return both[np.arange(both.shape[1]) < lengths[:, None]], lengths


def popular_first(items: np.ndarray, *, size: int) -> np.ndarray:
    """All ids below `size`, popular ones first, and of equals the one met earlier in `items`: no use of an id's number.

    Ids that the data lack come last. Where ties must be broken they are broken by this.
    """
    count = np.bincount(items, minlength=size)[:size]
    met = np.full(size, len(items))
    ids, place = np.unique(items, return_index=True)
    met[ids] = place
    return np.lexsort((met, -count))
