"""Sequence files (`user item item ...` a line, oldest first), read as they are."""

from typing import Literal

import chz
import numpy as np
import pyarrow as pa

from data.building.read import Manual
from data.errors import UserError
from data.features import FIRST, Categorical, Features, Group, Label, Sequence
from data.paths import expand
from data.rejects import report
from data.sources import InMemory, SourceConfig

LENGTH = 50
FILE = "sequences.txt"
HOME = "the page of the paper whose split you want (SASRec, S3-Rec, TIGER), or your own export in this form"


def features(rows: int, *, length: int) -> Features:
    item = Categorical(name="item", rows=rows, role="user")
    history = Sequence(name="history", of=item, length=length, role="user")
    return Features(all=(history, Label(name="target", type="class"), Group(name="user")))


class Lines:
    """The file in memory: users, and all items end to end. Faulty lines are set aside by name."""

    def __init__(self, manual: Manual):
        path = manual.find(FILE)
        known = self._catalogue(manual)
        users: list[int] = []
        items: list[int] = []
        ends = [0]
        seen: set[int] = set()
        number = -1
        for number, line in manual.lines(FILE):
            words = line.split()
            fault = _fault(words, seen, known)
            if fault:
                manual.set_aside(path, [number], field="line", why=fault, values=[line[:80]])
                continue
            user, *of = map(int, words)
            seen.add(user)
            users.append(user)
            items.extend(of)
            ends.append(len(items))
        manual.count(path, number + 1)
        self.users = np.array(users, np.int64)
        self.items = np.array(items, np.int64) + 1  # ids begin at 1 in the file and at 2 here
        self.ends = np.array(ends, np.int64)
        self.rows = FIRST + (known if known is not None else int(self.items.max(initial=FIRST - 1)) - 1)

    def _catalogue(self, manual: Manual) -> int | None:
        """How many items there are, where items.tsv lies beside the sequences."""
        if not manual.has("items.tsv"):
            return None
        schema = pa.schema([("item_id", pa.int64()), ("title", pa.string())])
        tables = manual.csv("items.tsv", schema=schema, delimiter="\t", quote=False, key="item_id")
        return max((int(max(table["item_id"].to_numpy(), default=0)) for table in tables), default=0)

    def cut(self, back: int, *, length: int | None):
        """User, history end to end and its length, and target: the item `back` from the end."""
        start, end = self.ends[:-1], self.ends[1:] - back
        keep = end > start
        start, end = start[keep], end[keep]
        first = start if length is None else np.maximum(start, end - length)
        count = end - first
        at = np.repeat(first - np.cumsum([0, *count[:-1]]), count) + np.arange(count.sum())
        return self.users[keep], self.items[at], count, self.items[end]


def _fault(words: list[str], seen: set[int], known: int | None) -> str:
    if not all(word.isdecimal() for word in words):
        return "not numbers"
    if len(words) < 3:
        return "fewer than 2 items"
    if int(words[0]) in seen:
        return "user seen before"
    ids = [int(word) for word in words[1:]]
    if min(ids) < 1 or (known is not None and max(ids) > known):
        return f"item id outside 1..{known or 'any'}"
    return ""


@chz.chz
class SequenceFile(SourceConfig):
    """One row per user of a sequence file: what came before its target, the last item but one, two or none.

    The last item of the file is the validation target, or with `whole` the test target. The training target ends the
    training sequence; NextTargets(target="target") gives the positions before it theirs.
    """

    path: str = chz.field(doc="folder with sequences.txt and items.tsv, plain or .gz; may begin with $NAME")
    split: Literal["train", "valid", "test"] = "train"
    whole: bool = chz.field(default=False, doc="the file ends at the test item, not at the validation item")
    max_len: int = LENGTH
    max_rejects: float = chz.field(default=0.01, doc="share of lines that may be set aside before the run stops")

    def make(self) -> InMemory:
        lines = read_lines(self.path, max_rejects=self.max_rejects)
        user, items, count, target = lines.cut(self._back(), length=self.max_len)
        history = np.zeros((len(user), self.max_len), np.int64)
        history[np.arange(self.max_len) < count[:, None]] = items
        columns = {"user": user, "history": history, "history/length": count, "target": target}
        return InMemory(columns, features=features(lines.rows, length=self.max_len))

    def sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """Items end to end, each user's target after all of the history, and how many each user has."""
        _, items, count, target = read_lines(self.path, max_rejects=self.max_rejects).cut(self._back(), length=None)
        return np.insert(items, np.cumsum(count), target), count + 1

    def _back(self) -> int:
        test = 1 if self.whole else 0
        back = {"train": 2 + test, "valid": 1 + test, "test": test}[self.split]
        if not back:
            raise UserError(f"{self.path} keeps the test items back; whole=True reads a file that has them")
        return back


def read_lines(path: str, *, max_rejects: float) -> Lines:
    """The whole file; faulty lines beyond `max_rejects` stop it."""
    manual = Manual(expand(path), home=HOME, max_rejects=max_rejects, md5={})
    lines = Lines(manual)
    report(manual.rejects, manual.rows, path=None, max_share=max_rejects)
    return lines
