"""What people are shown of items and users: titles, pictures, plain columns, examples to begin with. No model reads it.

Titles and pictures lie in a feature store, beside the columns that the ranker reads or in one of their own;
`examples.json` in a funnel's folder holds raw fields of a few users.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.columns import is_bytes, is_number, is_text
from data.errors import UserError
from data.manifest import read_json
from serve.features.store import FeatureStore, Item
from serve.funnel_config import FUNNEL, Display

EXAMPLES = "examples.json"
TITLE = "title"

KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
NUMBER = re.compile(r"-?[0-9]{1,19}")


class Showcase:
    """`store` has titles and pictures, `features` the columns that the funnel's own parts read."""

    def __init__(self, config: Display, *, folder: Path, store: FeatureStore, features: FeatureStore):
        self.config, self.store, self._features = config, store, features
        for name in (*config.columns, *config.filters):
            _check(name, store=features, folder=folder)
        for shown, fits, what in ((config.title, is_text, "text"), (config.image, is_bytes, "the bytes of pictures")):
            if shown is not None:
                _check(shown, store=store, folder=folder)
                if not fits(kind := store.schema.field(shown).type):
                    raise UserError(f"{folder / FUNNEL}: display column {shown!r} is {kind}, it should hold {what}")
        self.examples: list[dict[str, Any]] = []

    def read_examples(self, folder: Path, *, fields: Collection[str]) -> None:
        """Users that `folder` offers; one with a field that nothing reads is told, as a request's would be."""
        path = folder / EXAMPLES
        if not path.is_file():
            return
        found = read_json(path)
        if not isinstance(found, list) or not all(isinstance(user, dict) for user in found):
            raise UserError(f"{path} is damaged: it is a list of users' raw fields")
        strange = sorted({name for user in found for name in user} - set(fields))
        if strange:
            raise UserError(f"{path}: no part of the funnel reads the field {strange[0]!r} of an example")
        self.examples = found

    def of(self, ids: Sequence[Item]) -> list[dict[str, Any]]:
        """Title and columns of each, as JSON takes them; null where they are not known."""
        named = self.config.columns
        columns = self._features.get(ids, names=named).columns
        shown: list[dict[str, Any]] = [{} for _ in ids]
        parts = [(name, columns[name]) for name in named]
        if self.config.title is not None:
            titles = self.store.get(ids, names=[self.config.title]).columns[self.config.title]
            parts.insert(0, (TITLE, titles))
        for name, values in parts:
            for row, value in zip(shown, values.to_pylist(), strict=True):
                row[name] = _plain(value)
        return shown

    def image(self, id: str) -> bytes | None:
        """The picture's file, empty where the item has none; None where there is no such item."""
        key = self._key(id)
        if key is None:
            return None
        name = self.config.image
        looked = self.store.get([key], names=[self.store.id if name is None else name])
        if not looked.found[0]:
            return None
        return b"" if name is None else looked.columns[name][0].as_py() or b""

    def filters(self) -> list[dict[str, str]]:
        return [{"name": name, "kind": _kind(self._features.schema.field(name).type)} for name in self.config.filters]

    def _key(self, id: str) -> Item | None:
        """As the store's ids are; what a URL says is text."""
        if is_text(self.store.schema.field(self.store.id).type):
            return id
        if not NUMBER.fullmatch(id) or not -(1 << 63) <= int(id) < 1 << 63:
            return None
        return int(id)


def media_type(picture: bytes) -> str | None:
    """By its first bytes; None where browsers would have to guess."""
    found = next((kind for magic, kind in KINDS if picture.startswith(magic)), None)
    return None if found == "image/webp" and picture[8:12] != b"WEBP" else found


def example_users(rows: Sequence[Mapping[str, Any]], *, fields: Collection[str]) -> list[dict[str, Any]]:
    """Rows of a table of requests, without the columns that no part of a funnel reads."""
    return [{name: value for name, value in row.items() if name in fields} for row in rows]


def _check(name: str, *, store: FeatureStore, folder: Path) -> None:
    if name not in store.schema.names:
        known = ", ".join(store.schema.names)
        raise UserError(f"{folder / FUNNEL} displays {name!r}, which the store does not have; it has {known}")


def _kind(of: pa.DataType) -> str:
    if pa.types.is_boolean(of):
        return "truth"
    if pa.types.is_integer(of):
        return "integer"
    return "number" if is_number(of) else "text"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
