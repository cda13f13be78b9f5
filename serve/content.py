"""A request's words or picture as a vector: one side of a content encoder, as export --vectors wrote it.

What comes from a network is bytes and text, never a path. A picture is opened only as one of FORMATS and only after its
head has said how large it is: decoders of rarer formats are where faults lie, and a small file may hold a huge picture.
"""

import io
from pathlib import Path
from typing import Any, Literal

import chz
import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from data.encode import encode
from data.errors import UserError
from data.features import Features, Text
from data.vocabulary import Vocabularies
from serve.artifact import load
from serve.index.base import Index
from serve.inputs import needed
from serve.request import Unreadable

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
MOST_BYTES = 6 << 20
MOST_PIXELS = 24_000_000
MOST_LETTERS = 2_000

Kind = Literal["text", "picture"]
KINDS = {"text": "text", "picture": "image"}
"""What a request calls it, and the kind of feature that takes it."""


class ContentTower:
    """`tower(value)` is the vector of one text or of one encoded picture."""

    def __init__(self, path: Path, *, kind: Kind, index: Index, tokenizer: Path | None = None):
        self._artifact = artifact = load(path, max_batch=8)
        self.version, self.kind = artifact.version, kind
        made_by = artifact.signature.get("vectors", {}).get("model")
        if made_by is None:
            raise UserError(f"{path} gives no vectors; python -m serve export WORKDIR --vectors names the outputs")
        if made_by != index.model:
            raise UserError(
                f"the index holds vectors of model {index.model!r}, but {path} gives those of {made_by!r}; build the "
                "index again from the same checkpoint"
            )
        (dim,) = artifact.outputs["vector"][0]
        if dim != index.dim:
            raise UserError(
                f"{path} gives vectors of {dim} numbers, the index holds {index.dim}; where its items are outputs "
                "joined end to end, export as many of this side, such as --vectors query,query"
            )
        features = needed(artifact.features, inputs=artifact.inputs)
        found = [feature.kind for feature in features.all]
        if found != [KINDS[kind]]:
            raise UserError(f"{path} reads {', '.join(found)}; a tower of a {kind} reads one feature, a {KINDS[kind]}")
        (self._feature,) = features.all
        self._vocabularies = Vocabularies(artifact.vocabularies)
        if isinstance(self._feature, Text):
            if tokenizer is not None:
                self._feature = chz.replace(self._feature, tokenizer=str(tokenizer))
            if self._feature.tokenizer is None:
                raise UserError(f"{path} takes token ids; name the tokenizer that its texts were written with")
            self._vocabularies.tokenizer(self._feature.tokenizer)  # one that is not there is said now

    def __call__(self, value: Any) -> np.ndarray:
        """[d] float32."""
        if self.kind == "picture":
            check_picture(value)
            column = pa.array([value], pa.binary())
        else:
            column = pa.array([check_text(value)])
        done = encode(
            pa.table({self._feature.name: column}),
            features=Features(all=(self._feature,)),
            vocabularies=self._vocabularies,
            file="the request",
        )
        for line in done.rejects.lines():
            raise Unreadable(f"{self.kind}: {line['why']}", field=self.kind)
        vector = self._artifact(done.rows)["vector"][0]
        if not np.isfinite(vector).all():
            raise Unreadable(f"{self.kind}: its vector is not finite", field=self.kind)
        return vector


def check_text(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise Unreadable("text: it holds no words", field="text")
    if len(text) > MOST_LETTERS:
        raise Unreadable(f"text: {len(text):,} letters, at most {MOST_LETTERS:,} are read", field="text")
    return text


def check_picture(data: Any) -> None:
    """Refuses what is no picture of a common format, or too large, by its head alone."""
    if len(data) > MOST_BYTES:
        raise Unreadable(f"picture: {len(data):,} bytes, at most {MOST_BYTES:,} are read", field="picture")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise Unreadable(f"picture: it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", field="picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("picture: it has too many pixels", field="picture") from error
    if width * height > MOST_PIXELS:
        raise Unreadable(f"picture: {width} x {height} pixels, at most {MOST_PIXELS:,} are read", field="picture")
