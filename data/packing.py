"""Sources that cut or join sequences: all sliding windows of long ones, or several short ones in one row."""

import chz
import numpy as np

from data.errors import UserError
from data.features import Features, Sequence
from data.sources import Rows, Source, SourceConfig
from data.splits import column, shared
from data.transforms.history import Ids
from data.transforms.sequences import window, with_length


@chz.chz
class Windows(SourceConfig):
    """A row per window of `length` positions, `stride` apart, the first of them the newest; short histories stay."""

    source: SourceConfig
    history: str = chz.field(default="history", doc="sequence to cut")
    length: int = chz.field(doc="positions of a window")
    stride: int = chz.field(doc="positions between windows")

    def make(self) -> "WindowSource":
        return WindowSource(shared(self.source), config=self)


class WindowSource:
    def __init__(self, source: Source, *, config: Windows):
        self.source, self.config = source, config
        self.features = with_length(source.features, config.history, config.length)
        lengths = column(source, f"{config.history}/length").astype(np.int64)
        count = 1 + -(-np.maximum(lengths - config.length, 0) // config.stride)
        self.rows = np.repeat(np.arange(len(source)), count)
        first = np.repeat(np.cumsum(count) - count, count)
        self.ends = lengths[self.rows] - (np.arange(len(self.rows)) - first) * config.stride

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rows:
        return {name: array[0] for name, array in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        ends = self.ends[indices]
        start = np.maximum(ends - self.config.length, 0)
        batch = self.source.take(self.rows[indices])
        return window(batch, self.config.history, start=start, length=ends - start, width=self.config.length)


@chz.chz
class Packed(SourceConfig):
    """Several histories to a row of `length` positions, so that little of a batch is padding.

    `<history>/segment` numbers them from 1 (0 is padding) and `<history>/position` counts within each. Other features
    are left out: they have no one value per row.
    """

    source: SourceConfig
    history: str = chz.field(default="history", doc="sequence to pack")
    length: int = chz.field(doc="positions of a packed row; at least the longest history")

    def make(self) -> "PackedSource":
        return PackedSource(shared(self.source), config=self)


class PackedSource:
    def __init__(self, source: Source, *, config: Packed):
        feature = source.features[config.history]
        if not isinstance(feature, Sequence) or feature.length > config.length:
            raise UserError(f"Packed: {config.history!r} must be a sequence of at most {config.length} positions")
        self.source, self.name, self.width = source, config.history, config.length
        name = config.history
        self.features = Features(
            all=(
                chz.replace(feature, length=config.length),
                Ids(name=f"{name}/segment", length=config.length),
                Ids(name=f"{name}/position", length=config.length),
            )
        )
        lengths = column(source, f"{name}/length").astype(np.int64)
        rows = np.flatnonzero(lengths)
        bins = pack(lengths[rows], width=config.length)
        order = np.lexsort((rows, bins))
        self.members = rows[order]
        self.offsets = np.searchsorted(bins[order], np.arange(bins.max(initial=-1) + 2))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Rows:
        return {name: array[0] for name, array in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        held = self.offsets[indices + 1] - self.offsets[indices]
        row = np.repeat(np.arange(len(indices)), held)
        segment = np.arange(len(row)) - np.repeat(np.cumsum(held) - held, held)
        batch = self.source.take(self.members[np.repeat(self.offsets[indices], held) + segment])
        values, lengths = batch[self.name], batch[f"{self.name}/length"].astype(np.int64)
        before = np.cumsum(lengths) - lengths
        total = np.bincount(row, weights=lengths, minlength=len(indices)).astype(np.int64)
        start = before - np.repeat((np.cumsum(total) - total), held)
        piece, place = np.nonzero(np.arange(values.shape[1]) < lengths[:, None])
        at = row[piece], start[piece] + place
        out = np.zeros((len(indices), self.width, *values.shape[2:]), values.dtype)
        segments, positions = np.zeros((2, len(indices), self.width), np.int32)
        out[at], segments[at], positions[at] = values[piece, place], segment[piece] + 1, place
        name = self.name
        return {
            name: out,
            f"{name}/length": total.astype(np.int32),
            f"{name}/segment": segments,
            f"{name}/position": positions,
        }


def pack(lengths: np.ndarray, *, width: int) -> np.ndarray:
    """A bin of `width` for each length: longest first, each to the fullest bin that takes it, many at a time."""
    bins = np.empty(len(lengths), np.int64)
    free: dict[int, np.ndarray] = {room: np.zeros(0, np.int64) for room in range(width + 1)}
    opened = 0
    for length in range(width, 0, -1):
        left = np.flatnonzero(lengths == length)
        while len(left):
            room = next((room for room in range(length, width) if len(free[room])), None)
            if room is None:
                made = -(-len(left) // (width // length))
                free[width] = np.arange(opened, opened + made)
                opened, room = opened + made, width
            taken = min(len(left), len(free[room]))
            chosen, free[room] = free[room][:taken], free[room][taken:]
            bins[left[:taken]] = chosen
            free[room - length] = np.append(free[room - length], chosen)
            left = left[taken:]
    return bins
