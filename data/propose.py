"""The feature file that `python -m data stats` proposes: valid Python, one line a column, with what was seen."""

import pyarrow as pa

from data.columns import is_bytes, is_list, is_number, is_text
from data.stats import Column, Stats, picture_size

HASHED = 1_000_000
"""Distinct values from which a hashed table is proposed instead of a vocabulary."""


def propose(stats: Stats) -> str:
    lines = [_line(stats, column) for column in stats.columns]
    kinds = sorted({word for line, _ in lines for word in _kinds(line)})
    body = []
    for column, (line, note) in zip(stats.columns, lines, strict=True):
        body.append(f"        # {note}")
        body += [f"        # WARNING {column.name}: {warning}" for warning in column.warnings]
        body.append(f"        {line}")
    origin = f"{stats.rows:,} rows in {stats.files} files"
    return "\n".join(
        [
            f'"""Proposed from {origin} by `python -m data stats`: check each line."""',
            "",
            f"from data.features import {', '.join(sorted({'Features', *kinds}))}",
            "",
            "FEATURES = Features(",
            "    all=(",
            *body,
            "    )",
            ")",
            "",
        ]
    )


def _kinds(line: str) -> set[str]:
    known = ("Categorical", "Dense", "Group", "Image", "Label", "Numeric", "Sequence", "Text", "Time", "Weight")
    return set() if line.startswith("#") else {kind for kind in known if f"{kind}(" in line}


def _line(stats: Stats, column: Column) -> tuple[str, str]:
    """A call and what was seen."""
    name, kind, seen = column.name, column.type, _seen(column)
    if name == stats.label:
        return f'Label(name="{name}"),', f"{column.mean:.2%} positive, {seen}"
    if name == stats.time:
        return f'Time(name="{name}"{_origin(column)}),', seen
    if name.lower() in ("weight", "sample_weight"):
        return f'Weight(name="{name}"),', seen
    if is_list(kind):
        return _list(stats, column), seen
    if is_bytes(kind):
        size = picture_size(stats, name)
        if size is None:
            return f"# {name}: bytes that are no picture,", seen
        return f'Image(name="{name}", height={size[0]}, width={size[1]}),', seen
    if is_text(column.inner):
        if column.length > 24 and column.distinct > stats.rows / 20:
            return f'# Text(name="{name}", tokens=8000, length=16, tokenizer="{name}.json"),', f"free text, {seen}"
        return f"{_categorical(column)},", seen
    if pa.types.is_integer(kind) and _is_key(column):
        return f"{_categorical(column)},", seen
    if pa.types.is_boolean(kind):
        return f'Numeric(name="{name}"{_default(column)}),', seen
    if is_number(kind):
        return f'Numeric(name="{name}"{_transform(column)}{_default(column)}),', seen
    return f"# {name}: no feature for {kind},", seen


def _list(stats: Stats, column: Column) -> str:
    name = column.name
    if is_text(column.inner) or pa.types.is_integer(column.inner):
        twin = next((c for c in stats.columns if not is_list(c.type) and _is_twin(c, column)), None)
        of = _categorical(twin or column)
        return f'Sequence(name="{name}", of={of}, length={max(1, min(column.length, 200))}),'
    if is_number(column.inner):
        if pa.types.is_fixed_size_list(column.type):
            return f'Dense(name="{name}", dim={column.type.list_size}),'
        return f'Sequence(name="{name}", of=Numeric(name="{name}"), length={max(1, min(column.length, 200))}),'
    return f"# {name}: no feature for {column.type},"


def _is_twin(single: Column, history: Column) -> bool:
    """`item` and `item_history` speak of the same things."""
    stem = single.name.lower().removesuffix("_id").removesuffix("id")
    return bool(stem) and stem in history.name.lower() and single.type == history.inner


def _categorical(column: Column) -> str:
    role = _role(column.name)
    if column.distinct > HASHED:
        rows, encode = 1 << (2 * column.distinct).bit_length(), "hash"
    else:  # the count is an estimate, and new values come
        rows, encode = int(column.distinct * 1.2) + 10, "vocabulary"
    return f'Categorical(name="{column.name}", rows={rows}, encode="{encode}"{role})'


def _role(name: str) -> str:
    name = name.lower()
    for role, words in {"user": ("user", "uid", "member", "visitor"), "item": ("item", "ad", "product", "sku")}.items():
        if any(name == word or name.startswith(word + "_") for word in words):
            return f', role="{role}"'
    return ""


def _is_key(column: Column) -> bool:
    name = column.name.lower()
    key = name.endswith(("id", "_type", "_code", "category", "brand")) or _role(name) != ""
    return key or column.distinct <= 100


def _origin(column: Column) -> str:
    if is_number(column.type) and isinstance(column.high, int | float) and column.high >= 2**31:
        return f", origin={int(column.low)}"
    return ""


def _transform(column: Column) -> str:
    if pa.types.is_boolean(column.type):
        return ""
    if isinstance(column.low, int | float) and column.low >= 0 and float(column.high) > 20 * max(column.mean, 1e-9):
        return ', transform="log1p"'
    if column.std > 0:
        return f', transform="standard", mean={column.mean:.6g}, scale={column.std:.6g}'
    return ""


def _default(column: Column) -> str:
    """The mean, so that a missing value says nothing, where the scale is about the mean."""
    return f", default={column.mean if 'standard' in _transform(column) else 0.0:.6g}" if column.nulls else ""


def _seen(column: Column) -> str:
    parts = [str(column.type)]
    if column.distinct:
        parts.append(f"about {column.distinct:,} values")
    if column.nulls:
        parts.append(f"{column.nulls:.2%} null")
    if column.top > 0.2:
        parts.append(f"the most frequent has {column.top:.0%}")
    if column.length and (is_list(column.type) or is_text(column.type)):
        parts.append(f"95 % within {column.length}")
    if is_number(column.inner) and column.low is not None:
        parts.append(f"{column.low:.10g} to {column.high:.10g}")
    return ", ".join(parts)
