"""ScaNN: a tree over the rows, asymmetric hashing within its leaves, exact scores of what is best by the hashes.

Guo et al., ICML 2020 (anisotropic quantization); Sun et al., NeurIPS 2023 (SOAR: a row lies in a second leaf too, whose
error is orthogonal to the first's). Of a filter ScaNN knows nothing: more is fetched than asked for, and where too few
of it meet the filter, the rows that do are compared exactly.
"""

import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serve.index.base import Found, Keeps, best, compared, padded

FOLDER = "scann"
ASSETS = "scann_assets.pbtxt"
FEWEST = 4096
"""Smaller sets are compared exactly, which takes no longer than a tree would."""
FEW = 8192
"""So few rows that meet a filter are compared without asking ScaNN."""
DEPTH = 10
"""The k that `searched` and `reorder` are meant for; deeper searches look into more."""
DEEPER = 0.65
"""Of this power of k / DEPTH: chosen so that the recall at 100 is about that at 10."""


@dataclass(frozen=True)
class Settings:
    """`searched` of the `leaves` are looked into, `reorder` rows are scored exactly."""

    leaves: int
    searched: int
    reorder: int
    soar: float | None = 1.5
    block: int = 2
    """Dimensions that one code of 4 bits stands for."""
    threshold: float = 0.2
    """Of anisotropic quantization."""

    def at(self, k: int) -> tuple[int, int]:
        """reorder and searched for the k best."""
        if k <= DEPTH + 1:  # one more, where a query's own row is left out afterwards
            return self.reorder, self.searched
        return self.reorder + 3 * (k - DEPTH), min(self.leaves, math.ceil(self.searched * (k / DEPTH) ** DEEPER))


class Scann:
    name = "scann"

    def __init__(self, searcher: Any, *, vectors: np.ndarray, settings: Settings, files: Path | None = None):
        self._searcher, self.vectors, self.settings, self.files = searcher, vectors, settings, files
        """`files`: a folder that it was opened from or saved in, for as long as that is there."""
        self._at = {DEPTH: settings.at(DEPTH)}

    def about(self) -> dict[str, Any]:
        return asdict(self.settings)

    def with_settings(self, settings: Settings) -> "Scann":
        """The same tree, searched otherwise."""
        return Scann(self._searcher, vectors=self.vectors, settings=settings, files=self.files)

    def nearest(self, queries: np.ndarray, *, k: int, keep: Keeps | None = None) -> Found:
        count = len(self.vectors)
        if keep is None:
            return self._raw(queries, k=k)
        if keep.count <= max(FEW, k):
            return compared(self.vectors, queries, k=k, rows=keep.rows())
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        left = np.arange(len(queries))
        fetch = math.ceil(1.2 * k * count / keep.count) + 8
        for _ in range(2):
            if not len(left) or fetch > count // 8:
                break
            found, theirs = self._raw(queries[left], k=fetch)
            theirs = np.where(keep.at(found) & (found >= 0), theirs, -np.inf)
            rows[left], scores[left] = best(found.astype(np.int64), theirs, k=k)
            left = left[scores[left, -1] == -np.inf]
            fetch *= 4
        if len(left):
            rows[left], scores[left] = compared(self.vectors, queries[left], k=k, rows=keep.rows())
        return rows, scores

    def _raw(self, queries: np.ndarray, *, k: int) -> Found:
        most = min(k, len(self.vectors))
        reorder, searched = self.settings.at(most)
        if len(queries) == 1:
            rows, scores = self._searcher.search(queries[0], most, reorder, searched)
            rows, scores = rows[None], scores[None]
        else:
            rows, scores = self._searcher.search_batched(queries, most, reorder, searched, False, 0)
            if np.isnan(scores[:, -1:]).any():
                absent, rows = np.isnan(scores), rows.astype(np.int64)
                rows[absent], scores[absent] = -1, -np.inf
        return (rows, scores) if rows.shape[1] == k else padded(rows.astype(np.int64), scores, k=k)

    def single(self, query: np.ndarray, *, k: int) -> Found | None:
        """Rows [k] and scores [k] for one query [d], with nothing checked; None where `nearest` should be asked."""
        try:
            reorder, searched = self._at.get(k) or self._at.setdefault(k, self.settings.at(k))
            rows, scores = self._searcher.search(query, k, reorder, searched)
        except RuntimeError:  # of what is not finite; the checks before `nearest` say so
            return None
        return (rows, scores) if len(rows) == k else None

    def save(self, folder: Path) -> None:
        """Nothing that it writes is a pickle: protocol buffers and arrays, which never change and may be shared."""
        if self.files is not None and self.files.is_dir():
            shutil.copytree(self.files, folder, copy_function=_linked)
        else:  # all threads of this process wait for it
            folder.mkdir()
            self._searcher.serialize(str(folder), True)


def train(vectors: np.ndarray, *, settings: Settings, threads: int = 0) -> Scann:
    """Builds the tree and the codes; 0 threads: as many as there are cores."""
    ops = _scann()
    builder = ops.builder(vectors, DEPTH, "dot_product")
    builder = builder.tree(
        num_leaves=settings.leaves,
        num_leaves_to_search=settings.searched,
        training_sample_size=min(len(vectors), max(100_000, 50 * settings.leaves)),
        **({} if settings.soar is None else {"soar_lambda": settings.soar}),
    )
    builder = builder.score_ah(settings.block, anisotropic_quantization_threshold=settings.threshold)
    builder = builder.reorder(settings.reorder).set_n_training_threads(threads or os.cpu_count() or 1)
    return Scann(builder.build().searcher, vectors=vectors, settings=settings)


def open_scann(folder: Path, *, about: dict[str, Any]) -> Scann:
    """Of files whose checksums were verified."""
    text = (folder / ASSETS).read_text()
    vectors = np.load(folder / "dataset.npy", mmap_mode="r")
    searcher = _scann().scann_pybind.ScannNumpy(str(folder), text)
    return Scann(searcher, vectors=vectors, settings=Settings(**about), files=folder)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def leaves_for(rows: int) -> int:
    return max(16, round(2 * math.sqrt(rows)))


def _scann() -> Any:
    try:
        from scann.scann_ops.py import scann_ops_pybind
    except ImportError as error:
        raise UserError("scann is not installed; it exists for Linux: pip install scann, or --engine exact") from error
    return scann_ops_pybind
