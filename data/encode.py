"""From raw columns to the arrays that the declared features promise.

Whole columns at a time; faults of single rows are named in `Rejects` and the rows set aside, faults of the table
(missing column, wrong type) stop with one line. Missing categories become id 0, unknown ones id 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.columns import (
    Table,
    column,
    floats,
    integers,
    is_key,
    is_list,
    is_number,
    is_text,
    lists,
    nulls,
    parse_integers,
    split,
)
from data.errors import UserError
from data.features import MISSING, UNKNOWN, Categorical, Feature, Features, Label, Numeric
from data.hashing import hash_column, hash_ids
from data.images import NO_IMAGE, decode, picture_bytes
from data.rejects import Rejects
from data.sources import Rows
from data.vocabulary import Vocabularies, Vocabulary

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Encoded:
    rows: Rows
    keep: np.ndarray
    """Which rows of the table are in `rows`, in order."""
    rejects: Rejects


def encode(
    table: Table,
    *,
    features: Features,
    vocabularies: Mapping[str, Vocabulary] | None = None,
    file: str = "table",
    first_row: int = 0,
    separator: str | None = None,
) -> Encoded:
    """Encodes `table`, whose first row is row `first_row` of `file`; `separator` splits strings where lists are due."""
    known = vocabularies if isinstance(vocabularies, Vocabularies) else Vocabularies(known=vocabularies)
    job = _Job(table, vocabularies=known, file=file, first_row=first_row, separator=separator)
    rows: Rows = {}
    for feature in sorted(features.all, key=lambda f: f.kind == "image"):  # decoded last, where the row is good so far
        rows.update(job.encode(feature))
    rows = {name: rows[name] for name in features.arrays()}
    keep = np.flatnonzero(~job.bad)
    job.rejects.count += len(job.bad) - len(keep)
    if len(keep) < len(job.bad):
        rows = {name: array[keep] for name, array in rows.items()}
    return Encoded(rows, keep, job.rejects)


class _Job:
    """One table on its way; `bad` marks the rows set aside."""

    def __init__(self, table: Table, *, vocabularies: Vocabularies, file: str, first_row: int, separator: str | None):
        self.table, self.vocabularies, self.file, self.separator = table, vocabularies, file, separator
        self.first_row = first_row
        self.bad = np.zeros(table.num_rows, bool)
        self.rejects = Rejects()

    def encode(self, feature: Any) -> Rows:
        values = column(self.table, feature.name, file=self.file)
        match feature.kind:
            case "categorical":
                return {feature.name: self._categorical(values, feature)}
            case "sequence" | "multihot":
                return self._sequence(values, feature)
            case "numeric":
                return {feature.name: self._numeric(values, feature)}
            case "label" | "truth":
                return {feature.name: self._label(values, feature)}
            case "weight":
                return {feature.name: self._weight(values, feature)}
            case "group":
                return {feature.name: self._group(values, feature)}
            case "time":
                return {feature.name: self._time(values, feature)}
            case "dense":
                return {feature.name: self._dense(values, feature)}
            case "image":
                return {feature.name: self._image(values, feature)}
            case "text":
                return self._text(values, feature)
        raise UserError(f"{feature.name!r}: no rule encodes a feature of kind {feature.kind!r}")

    def reject(self, rows: np.ndarray, *, feature: Feature, why: str, values: pa.Array | None = None) -> None:
        where = np.flatnonzero(rows)
        if len(where):
            shown = None if values is None else [values[int(i)].as_py() for i in where[:10]]
            self.rejects.add(file=self.file, field=feature.name, why=why, rows=where + self.first_row, values=shown)
            self.bad |= rows

    def wrong_type(self, feature: Feature, kind: pa.DataType, needs: str) -> UserError:
        return UserError(
            f"{self.file}: column {feature.name!r} is {kind}, but its {feature.kind} feature needs {needs}"
        )

    # Categories ------------------------------------------------------------------------------------------------

    def _categorical(self, values: pa.Array, feature: Categorical) -> np.ndarray:
        ids, bad = self._ids(values, feature, of=feature)
        self.reject(bad, feature=feature, why=_range(feature), values=values)
        self.rejects.note(field=feature.name, why="unknown, became id 1", count=_unknown(ids, feature))
        return ids

    def _ids(self, values: pa.Array, feature: Feature, *, of: Categorical) -> tuple[np.ndarray, np.ndarray]:
        """Ids of flat values, and which values are faulty."""
        none = np.zeros(len(values), bool)
        if pa.types.is_null(values.type):
            return np.full(len(values), MISSING, np.int32), none
        if of.encode == "id":
            if is_text(values.type) and self.separator is not None:
                values, none = parse_integers(values)
            if not is_number(values.type):
                raise self.wrong_type(feature, values.type, "integers (encode='id'); or declare encode='hash'")
            array, missing, wrong = integers(values)
            bad = none | wrong | (array < 0) | (array >= of.rows)
            return np.where(missing | bad, MISSING, array).astype(np.int32), bad
        if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
            array, missing, wrong = integers(values)
            values, none = pa.array(array, mask=missing | wrong), wrong
        if not is_key(values.type):
            raise self.wrong_type(feature, values.type, "integers or strings")
        if of.encode == "hash":
            return hash_ids(values, rows=of.rows), none
        vocabulary = self.vocabularies[of.vocabulary or of.table]
        if vocabulary.rows > of.rows:
            raise UserError(
                f"vocabulary {vocabulary.name!r} needs {vocabulary.rows} rows, but {feature.name!r} declares {of.rows}"
            )
        return vocabulary.lookup(values), none

    def _sequence(self, values: pa.Array, feature) -> Rows:
        if self.separator is not None and is_text(values.type):
            values = split(values, self.separator)
        if pa.types.is_null(values.type):
            values = values.cast(pa.list_(pa.int64()))
        if not is_list(values.type):
            raise self.wrong_type(feature, values.type, "lists")
        held = lists(values)
        at, valid, lengths = held.newest(feature.length)
        longer = int((held.lengths > feature.length).sum())
        self.rejects.note(field=feature.name, why=f"longer than {feature.length}, oldest dropped", count=longer)
        flat, bad, why = self._flat(held.values, feature, used=at[valid])
        if not len(flat):
            return {
                feature.name: np.zeros((len(values), *feature.shape), feature.dtype),
                f"{feature.name}/length": lengths,
            }
        if bad.any():
            self.reject((bad[at] & valid).any(axis=1), feature=feature, why=why)
        mask = valid.reshape(valid.shape + (1,) * (flat.ndim - 1))
        return {feature.name: np.where(mask, flat[at], np.zeros((), flat.dtype)), f"{feature.name}/length": lengths}

    def _flat(self, values: pa.Array, feature, *, used: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
        match feature.of.kind:
            case "categorical":
                ids, bad = self._ids(values, feature, of=feature.of)
                self.rejects.note(field=feature.name, why="unknown, became id 1", count=_unknown(ids, feature.of))
                return ids, bad, _range(feature.of)
            case "numeric":
                array, bad, why = self._number(values, feature.of)
                return array, bad, why
            case "dense":
                return self._vectors(values, feature, dim=feature.of.dim)
            case "image":
                skip = np.ones(len(values), bool)
                skip[used] = False
                array, faults = self._pictures(values, feature, of=feature.of, skip=skip)
                return array, np.isin(np.arange(len(values)), list(faults)), "a frame does not decode"
        raise UserError(f"{feature.name!r}: a sequence does not hold values of kind {feature.of.kind}")

    # Numbers ---------------------------------------------------------------------------------------------------

    def _numeric(self, values: pa.Array, feature: Numeric) -> np.ndarray:
        array, bad, why = self._number(values, feature)
        self.reject(bad, feature=feature, why=why)
        return array

    def _number(self, values: pa.Array, feature: Numeric) -> tuple[np.ndarray, np.ndarray, str]:
        if not (is_number(values.type) or pa.types.is_null(values.type)):
            raise self.wrong_type(feature, values.type, "numbers")
        array = floats(values)[0]
        why = "not finite" if feature.default is not None else "null or not finite"
        if feature.default is not None:
            array = np.where(np.isnan(array), feature.default, array)
        bad = ~np.isfinite(array)
        array = np.where(bad, 0, array)
        if feature.transform == "log1p":
            array = np.sign(array) * np.log1p(np.abs(array))
        elif feature.transform == "standard":
            array = (array - feature.mean) / feature.scale
        bad |= np.abs(array) > np.finfo(np.float32).max
        return np.where(bad, 0, array).astype(np.float32), bad, why

    def _label(self, values: pa.Array, feature: Label) -> np.ndarray:
        array = self._plain(values, feature, why="null label" if feature.kind == "label" else "null truth")
        if feature.type == "binary":
            self.reject((array != 0) & (array != 1), feature=feature, why="label is not 0 or 1", values=values)
        elif feature.type == "class":
            wrong = (array != np.floor(array)) | (array < 0) | (array > INT32.max)
            self.reject(wrong, feature=feature, why="label is no class number", values=values)
            array = np.where(wrong, 0, array)
        return array.astype(feature.dtype)

    def _weight(self, values: pa.Array, feature: Feature) -> np.ndarray:
        array = self._plain(values, feature, why="null weight")
        self.reject(array < 0, feature=feature, why="negative weight", values=values)
        return array.astype(np.float32)

    def _plain(self, values: pa.Array, feature: Feature, *, why: str) -> np.ndarray:
        if not (is_number(values.type) or pa.types.is_null(values.type)):
            raise self.wrong_type(feature, values.type, "numbers")
        array, _ = floats(values)
        bad = np.isnan(array)
        self.reject(bad, feature=feature, why=why)
        self.reject(np.isinf(array), feature=feature, why="infinite")
        return np.where(np.isfinite(array), array, 0)

    def _group(self, values: pa.Array, feature) -> np.ndarray:
        self.reject(nulls(values), feature=feature, why="null group")
        if feature.encode == "hash":
            return (hash_column(values) & np.uint64(INT32.max)).astype(np.int32)
        if feature.encode == "vocabulary":
            return self.vocabularies[feature.name].lookup(values)
        if not is_number(values.type):
            raise self.wrong_type(feature, values.type, "integers; or declare encode='hash'")
        array, _, wrong = integers(values)
        wrong |= (array < INT32.min) | (array > INT32.max)
        self.reject(wrong, feature=feature, why="no 32-bit integer; declare encode='hash'", values=values)
        return np.where(wrong, 0, array).astype(np.int32)

    def _time(self, values: pa.Array, feature) -> np.ndarray:
        if pa.types.is_date(values.type):
            values = values.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(values.type):
            values = pc.cast(values, pa.timestamp("s", values.type.tz), safe=False).cast(pa.int64())
        if not (is_number(values.type) or pa.types.is_null(values.type)):
            raise self.wrong_type(feature, values.type, "timestamps or seconds")
        array, missing = floats(values)
        array = array - feature.origin
        self.reject(missing | np.isnan(array), feature=feature, why="null time")
        wrong = (array < INT32.min) | (array > INT32.max)
        self.reject(wrong, feature=feature, why="seconds since origin exceed 32 bits; set origin", values=values)
        return np.where(wrong | np.isnan(array), 0, array).astype(np.int32)

    # Vectors, pictures and words -------------------------------------------------------------------------------

    def _dense(self, values: pa.Array, feature) -> np.ndarray:
        array, bad, why = self._vectors(values, feature, dim=feature.dim)
        self.reject(bad, feature=feature, why=why)
        return array

    def _vectors(self, values: pa.Array, feature: Feature, *, dim: int) -> tuple[np.ndarray, np.ndarray, str]:
        if not is_list(values.type) or not is_number(values.type.value_type):
            raise self.wrong_type(feature, values.type, f"lists of {dim} numbers")
        held = lists(values)
        flat = np.append(floats(held.values)[0], 0).astype(np.float32)
        right = held.lengths == dim
        array = flat[np.where(right[:, None], held.starts[:, None] + np.arange(dim), len(flat) - 1)]
        bad = ~right | ~np.isfinite(array).all(axis=1)
        return np.where(bad[:, None], 0, array), bad, f"not {dim} finite numbers"

    def _image(self, values: pa.Array, feature) -> np.ndarray:
        array, faults = self._pictures(values, feature, of=feature, skip=self.bad)
        if feature.absent == "black":
            faults = {row: reason for row, reason in faults.items() if reason != NO_IMAGE}
        for why in sorted(set(faults.values())):
            rows = np.zeros(len(values), bool)
            rows[[row for row, reason in faults.items() if reason == why]] = True
            self.reject(rows, feature=feature, why=why)
        return array

    def _pictures(self, values: pa.Array, feature: Feature, *, of, skip: np.ndarray) -> tuple[np.ndarray, dict]:
        encoded = picture_bytes(values)
        if encoded is None:
            raise self.wrong_type(feature, values.type, "encoded image bytes")
        return decode(encoded, height=of.height, width=of.width, channels=of.channels, skip=skip)

    def _text(self, values: pa.Array, feature) -> Rows:
        if pa.types.is_null(values.type):
            values = values.cast(pa.list_(pa.int64()))
        if feature.tokenizer is not None and is_text(values.type):
            values = self._tokens(values, feature)
        if not is_list(values.type):
            needs = "lists of token ids; or name a tokenizer" if feature.tokenizer is None else "strings"
            raise self.wrong_type(feature, values.type, needs)
        held = lists(values)
        lengths = np.minimum(held.lengths, feature.length)
        longer = int((held.lengths > feature.length).sum())
        self.rejects.note(field=feature.name, why=f"longer than {feature.length} tokens, cut", count=longer)
        valid = np.arange(feature.length) < lengths[:, None]
        at = np.where(valid, held.starts[:, None] + np.arange(feature.length), 0)
        tokens, _, wrong = integers(held.values)
        wrong |= (tokens < 0) | (tokens >= feature.tokens)
        tokens = np.append(tokens, 0) if not len(tokens) else tokens
        if wrong.any():
            self.reject((wrong[at] & valid).any(axis=1), feature=feature, why=f"token outside 0..{feature.tokens - 1}")
        array = np.where(valid, tokens[at], 0).astype(np.int32)
        return {feature.name: array, f"{feature.name}/length": lengths.astype(np.int32)}

    def _tokens(self, values: pa.Array, feature) -> pa.Array:
        from data.tokenizer import cut  # 30 ms, and only texts need it

        tokenizer = self.vocabularies.tokenizer(feature.tokenizer)
        if (size := tokenizer.get_vocab_size()) > feature.tokens:
            raise UserError(
                f"tokenizer {feature.tokenizer!r} has {size} tokens, but {feature.name!r} declares {feature.tokens}"
            )
        most = 32 * feature.length  # no word is that long: a book in a title must not cost a book's time
        long = int(pc.sum(pc.greater(pc.utf8_length(values), most)).as_py() or 0)
        self.rejects.note(field=feature.name, why=f"longer than {most} characters, cut before tokenising", count=long)
        texts = pc.fill_null(pc.utf8_slice_codeunits(values, 0, most) if long else values, "").to_pylist()
        found = tokenizer.encode_batch(texts, add_special_tokens=True)
        ids = [cut(encoding, length=feature.length) for encoding in found]
        shorter = sum(len(some) < len(encoding) for some, encoding in zip(ids, found, strict=True))
        self.rejects.note(field=feature.name, why=f"longer than {feature.length} tokens, cut", count=shorter)
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        flat = np.fromiter((token for row in ids for token in row), np.int64, count=int(offsets[-1]))
        return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _range(feature: Categorical) -> str:
    return f"id outside 0..{feature.rows - 1}" if feature.encode == "id" else "not a whole number"


def _unknown(ids: np.ndarray, feature: Categorical) -> int:
    return int((ids == UNKNOWN).sum()) if feature.encode == "vocabulary" else 0
