"""What items.tsv says of the items of a sequence file: their words, and vectors of their words.

Rows stand by the ids that a model sees (data/sequence_file.py), so that row 2 is item 1 of the file. An item that the
table lacks, or that has no words there, has an empty text, a row of zeros and a vector of zeros.
"""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from data.building.read import Manual
from data.errors import UserError
from data.features import FIRST

TABLE = "items.tsv"
KEY = "item_id"
COLUMNS = ("title", "categories", "genres", "year")
WORD = re.compile(r"[a-z0-9]+")


def texts(manual: Manual, *, rows: int, columns: tuple[str, ...] = COLUMNS) -> list[str]:
    """One text per id, of those columns that there are.

    Ids beyond the table's, the two that are no items, and items without a line have an empty one.
    """
    if not manual.has(TABLE):
        raise UserError(f"{manual.folder} has no {TABLE} (columns {KEY}, title and categories): it holds the words")
    schema = pa.schema([(KEY, pa.int64()), *((name, pa.string()) for name in columns)])
    found = [""] * rows
    for table in manual.csv(TABLE, schema=schema, delimiter="\t", quote=False, key=KEY, optional=columns):
        told = [table[name].to_pylist() for name in columns]
        for item, *words in zip(table[KEY].to_pylist(), *told, strict=True):
            row = item - 1 + FIRST
            if FIRST <= row < rows:
                found[row] = " ".join(word for word in words if word)
    return found


def tfidf(
    texts: list[str], *, columns: dict[str, int] | None = None, pairs: bool = False
) -> tuple[sp.csr_array, dict[str, int]]:
    """Rows of length 1: (1 + log count) log(texts / texts with the word), and each word's column.

    With `columns` given, other words are left out. With `pairs`, each two words in a row are a word too.
    """
    known = {} if columns is None else columns
    rows: list[int] = []
    places: list[int] = []
    for row, text in enumerate(texts):
        words = WORD.findall(text.lower())
        for word in [*words, *(map(" ".join, pairwise(words)) if pairs else ())]:
            place = known.setdefault(word, len(known)) if columns is None else known.get(word, -1)
            if place >= 0:
                rows.append(row)
                places.append(place)
    counts = sp.coo_array((np.ones(len(rows), np.float32), (rows, places)), shape=(len(texts), len(known))).tocsr()
    with_word = np.maximum(np.bincount(counts.indices, minlength=len(known)), 1)
    weight = np.log(max(sum(bool(text) for text in texts), 1) / with_word).astype(np.float32)
    counts.data = (1 + np.log(counts.data)) * weight[counts.indices]
    length = np.sqrt(counts.multiply(counts).sum(axis=1))
    counts.data /= np.repeat(np.where(length > 0, length, 1), np.diff(counts.indptr)).astype(np.float32)
    return counts, known


def vectors(texts: list[str], *, width: int, space: list[str] | None = None) -> np.ndarray:
    """`width` leading directions of TF-IDF [rows, width], each row of length 1 or of zeros.

    With `space`, words, weights and directions are those of other texts: vectors of two catalogues compare.
    """
    base, columns = tfidf(space if space is not None else texts)
    if width >= min(base.shape):
        raise UserError(f"{base.shape[0]} texts of {base.shape[1]} words have no {width} directions; lower the width")
    start = np.random.default_rng(0).normal(size=min(base.shape)).astype(np.float32)
    _, _, directions = svds(base, k=width, v0=start)
    rows = base if space is None else tfidf(texts, columns=columns)[0]
    found = rows @ directions[::-1].T
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(length > 1e-6, length, 1)).astype(np.float32)


def read_texts(folder: Path, *, rows: int, columns: tuple[str, ...] = COLUMNS) -> list[str]:
    """The texts of a folder; faulty lines stop it as they stop a build."""
    manual = Manual(folder, home="the data set's owner", max_rejects=0.01, md5={})
    return texts(manual, rows=rows, columns=columns)
