"""Sequence files: `user item item ...` a line, oldest first, and items.tsv with a title and a category path per item.

The form in which SASRec, S3-Rec and their successors publish Amazon 2014 and MovieLens. `data.sequence_file` reads the
same file without a build.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.read import Manual
from data.features import FIRST, Features
from data.sequence_file import HOME, LENGTH, Lines, features

CHUNK = 4096


class Sequences(Builder):
    """Next-item sequences, ids as given plus 1 (0 and 1 are taken). Leaves out the last items of every user."""

    BUILDER_CONFIGS = [
        Config(name="test_kept_back", description="train, valid: the file ends at each user's validation item"),
        Config(name="whole", description="train, valid, test: the file ends at each user's test item"),
    ]
    home = HOME
    citation = (
        "McAuley et al., SIGIR 2015 (Amazon 2014); Harper, Konstan, TiiS 2015 (MovieLens). "
        "Protocol: Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018."
    )
    licence = "That of the source: Amazon reviews and MovieLens are for research only; no redistribution."
    columns = pa.schema([("user", pa.int64()), ("history", pa.list_(pa.int64())), ("target", pa.int64())])
    keys = Keys(user="user", item="target", histories={"history": "target"})

    def parts(self, manual: Manual):
        lines = Lines(manual)
        self.sizes["item"] = lines.rows
        manual.notes += [
            "leave-last-two leaks time: other users' training items may be newer than a validation item; the file "
            "holds no times to count how many",
            f"users {len(lines.users)}, items {lines.rows - FIRST}, events {len(lines.items)}",
        ]
        ends = {"train": 2, "valid": 1} if self.builder_config.name == "test_kept_back" else {
            "train": 3, "valid": 2, "test": 1
        }  # fmt: skip
        return {split: self._rows(lines, back) for split, back in ends.items()}

    def _rows(self, lines: Lines, back: int) -> Iterator[pa.Table]:
        """Users with something before the target."""
        user, history, count, target = lines.cut(back, length=None)
        offsets = np.cumsum([0, *count])
        for at in range(0, len(user), CHUNK):
            part = slice(at, at + CHUNK)
            inner = pa.array(history[offsets[at] : offsets[min(at + CHUNK, len(user))]])
            own = pa.array(offsets[at : at + CHUNK + 1] - offsets[at], pa.int32())
            yield pa.table(
                {"user": user[part], "history": pa.ListArray.from_arrays(own, inner), "target": target[part]}
            )

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        return features(rows["item"], length=LENGTH)
