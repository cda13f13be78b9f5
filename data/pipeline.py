"""From a source to batches, on Grain: shuffled, sliced by process, transformed, read ahead, resumable by position.

Batch b covers the positions [b * batch_size, (b + 1) * batch_size) of the endless stream of epochs (data/order.py);
each process takes its contiguous slice. So one number is the whole state, and neither the process count nor the
number of threads and workers changes what a batch holds.
"""

from collections.abc import Iterator
from functools import reduce

import chz
import grain
import numpy as np
from absl import flags

from data.errors import UserError
from data.features import Features
from data.order import Bucketed, Order
from data.sources import Rows, Source
from data.splits import column
from data.transforms.base import Bound, RowRandom, Transform

VALID = "row/valid"
"""Present in a single pass: False on the rows that pad the last batch."""

ENDLESS = 1 << 40


@chz.chz
class Buckets:
    """Batches of rows of like length, padded no wider than they need; each width is compiled once."""

    sequence: str = chz.field(
        default="history", doc="sequence whose length decides; all that are declared of its length are cut with it"
    )
    widths: tuple[int, ...] = chz.field(doc="widths that batches may have, ascending; the declared length is one more")
    window: int = chz.field(default=64, doc="batches sorted together: more is less padding and less chance")


@chz.chz
class Loader:
    """How a source is read."""

    batch_size: int = chz.field(default=512, doc="rows of a global batch, over all processes")
    shuffle: bool = chz.field(default=True, doc="a new order each epoch")
    epochs: int | None = chz.field(default=None, doc="passes over the source; None: without end")
    transforms: tuple[Transform, ...] = chz.field(default=(), doc="applied to each batch, in order")
    buckets: Buckets | None = chz.field(default=None, doc="batches of like length, in training alone")
    prefetch: int = chz.field(default=4, doc="batches read ahead in threads; 0: read when asked")
    threads: int = chz.field(default=2, doc="threads that read ahead")
    workers: int = chz.field(default=0, doc="reading processes, worth their start (seconds) for heavy decoding only")
    seed: int = chz.field(default=0, doc="of the order and of the transforms' randomness")

    @chz.validate
    def _sizes(self):
        if self.batch_size < 1 or self.threads < 1 or min(self.prefetch, self.workers, self.seed) < 0:
            raise ValueError("batch_size and threads must be positive; prefetch, workers and seed not negative")

    def open(self, source: Source, *, process_index: int = 0, process_count: int = 1) -> "BatchIterator":
        """Batches for training. Rows left over by an epoch open the next; a last batch is filled the same way."""
        if not len(source):
            raise UserError("the source has no rows to train on: check its path, split and filters")
        batches = ENDLESS if self.epochs is None else -(-len(source) * self.epochs // self.batch_size)
        return self._iterator(source, process_index, process_count, batches=batches, once=False)

    def once(self, source: Source, *, process_index: int = 0, process_count: int = 1) -> "BatchIterator":
        """One pass in the source's own order; the last batch is padded and every batch has `row/valid`."""
        batches = -(-len(source) // self.batch_size)
        return self._iterator(source, process_index, process_count, batches=batches, once=True)

    def _iterator(self, source: Source, index: int, count: int, *, batches: int, once: bool) -> "BatchIterator":
        if self.batch_size % count:
            raise UserError(f"batch_size {self.batch_size} does not divide over {count} processes")
        local = self.batch_size // count
        plain = Order(
            len(source),
            shuffle=self.shuffle and not once,
            seed=self.seed,
            blocks=getattr(source, "blocks", None),
            window=getattr(source, "window", 1 << 20),
        )
        order: Order | Bucketed = plain
        if self.buckets is not None and not once:
            names = _together(source.features, self.buckets)
            lengths = reduce(np.maximum, (column(source, f"{name}/length") for name in names))
            order = Bucketed(plain, lengths, batch_size=self.batch_size, batches=batches, window=self.buckets.window)
        reader = _Reader(
            source=source,
            order=order,
            loader=self,
            transforms=tuple(transform.bind(source) for transform in self.transforms),
            rows=(index * local, (index + 1) * local),
            once=once,
        )
        features = reduce(lambda declared, transform: transform.features(declared), self.transforms, source.features)
        return BatchIterator(reader, features=features, batches=batches)


class BatchIterator:
    """Local numpy batches; `get_state` names the next one."""

    def __init__(self, reader: "_Reader", *, features: Features, batches: int):
        self.features = features
        self.batches = batches
        self._reader = reader
        self._batch = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        if self._batch >= self.batches:
            self.close()
            raise StopIteration
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._batch += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"batch": self._batch}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on at any batch, earlier or later, without reading those between."""
        self.close()
        self._batch = int(state["batch"])

    def close(self) -> None:
        """Ends threads and workers; iterating again starts them anew at the same batch."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> grain.DatasetIterator:
        loader = self._reader.loader
        data = grain.MapDataset.range(self._batch, self.batches).map(self._reader)
        ahead = grain.ReadOptions(
            num_threads=min(loader.threads, loader.prefetch), prefetch_buffer_size=loader.prefetch
        )
        batches = data.to_iter_dataset(ahead)
        if loader.workers:
            if not flags.FLAGS.is_parsed():  # grain's workers read absl flags, which only absl.app would parse
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(
                num_workers=loader.workers, per_worker_buffer_size=max(1, loader.prefetch // loader.workers)
            )
            batches = batches.mp_prefetch(options)
        return iter(batches)


class _Reader:
    """Batch number -> batch. Picklable, and free of state that matters."""

    def __init__(
        self,
        *,
        source: Source,
        order: Order | Bucketed,
        loader: Loader,
        transforms: tuple[Bound, ...],
        rows: tuple[int, int],
        once: bool,
    ):
        self.source, self.order, self.loader, self.transforms = source, order, loader, transforms
        self.rows_of_process, self.once = rows, once

    def __call__(self, batch_index: int) -> Rows:
        size = self.loader.batch_size
        low, high = self.rows_of_process
        start, stop = int(batch_index) * size + low, int(batch_index) * size + high
        if self.once:
            positions = np.arange(start, stop, dtype=np.int64)
            batch = self.source.take(np.minimum(positions, self.order.n - 1))
        else:
            batch = self.source.take(self.order.rows(start, stop))
        if isinstance(self.order, Bucketed) and self.loader.buckets is not None:
            names = _together(self.source.features, self.loader.buckets)
            batch = _cut(batch, self.loader.buckets, names=names, longest=self.order.longest(start))
        for number, transform in enumerate(self.transforms):
            seed = (self.loader.seed, int(batch_index), number)
            batch = transform(batch, rng=RowRandom(seed, start=low, stop=high, total=size))
        return {**batch, VALID: positions < self.order.n} if self.once else batch


def _together(features: Features, buckets: Buckets) -> list[str]:
    """The sequence that decides and those of its declared length: an item's features lie side by side in them."""
    decides = features[buckets.sequence]
    if decides.kind != "sequence":
        raise UserError(f"loader.buckets.sequence: {decides.name!r} is {decides.kind}, not a sequence")
    return [f.name for f in features.all if f.kind == "sequence" and f.max_len == decides.max_len]


def _cut(batch: Rows, buckets: Buckets, *, names: list[str], longest: int) -> Rows:
    width = min((w for w in buckets.widths if w >= longest), default=batch[buckets.sequence].shape[1])
    return {**batch, **{name: np.ascontiguousarray(batch[name][:, :width]) for name in names}}
