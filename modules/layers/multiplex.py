"""Unified Embedding: one table for all features.

Coleman et al., "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML Systems", NeurIPS 2023,
section 3 (feature multiplexing): e_f(v) = [T[h(v; f, 1)], ..., T[h(v; f, n)]], where h is salted by feature and chunk
and the first layer learns to tell features apart, so that they may collide with one another.
"""

import hashlib
from typing import Literal

import chz

SMALLEST = 3


@chz.chz
class Multiplex:
    """All looked-up features share one table; a feature's width is cut into chunks, each with its own hash.

    Rows 0 (missing) and 1 (unknown) are shared by all features and chunks; known ids fall on the other rows. Features
    of one `table`, such as an item and a history of items, are one feature here. A feature narrower than `chunk`
    (the first-order weights of a wide part) reads a second table with as many rows of its own width.
    """

    rows: int = chz.field(doc="rows of the table, rows 0 and 1 included")
    chunk: int | None = chz.field(
        default=None, doc="width of a row, of which every feature's width is a multiple; None: a vector is one row"
    )
    salt: Literal["feature", "none"] = chz.field(
        default="feature",
        doc="none: equal ids of all features share a row, to measure what salts are worth",
    )

    @chz.validate
    def _sizes_make_sense(self):
        if self.rows < SMALLEST:
            raise ValueError(f"multiplex.rows is {self.rows}; rows 0 and 1 are reserved, so give at least {SMALLEST}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"multiplex.chunk is {self.chunk}; a row is at least 1 wide")

    def salts(self, table: str, *, width: int) -> tuple[int, ...]:
        """One salt for each chunk of a vector of `width`."""
        chunk = min(self.chunk or width, width)
        if width % chunk:
            raise ValueError(f"{table!r} is {width} wide, which is no multiple of multiplex.chunk={chunk}")
        names = (f"{table if self.salt == 'feature' else ''}/{k}" for k in range(width // chunk))
        return tuple(int.from_bytes(hashlib.blake2b(n.encode(), digest_size=4).digest(), "big") for n in names)
