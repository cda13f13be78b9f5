"""What an item must be to be found: conditions on its attributes, all of which must hold."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.errors import UserError

Value = str | int | float | bool
FORM = 'a value, a list of values, or {"min": a, "max": b} with one or both'


@dataclass(frozen=True)
class Condition:
    """`name` is one of `values`, or lies from `low` to `high`, both included."""

    name: str
    values: tuple[Value, ...] | None = None
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Where:
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def parse(cls, wanted: Mapping[str, Any]) -> "Where":
        """From JSON such as {"category": ["shoes", "bags"], "price": {"min": 5, "max": 20}, "active": true}."""
        if not isinstance(wanted, Mapping):
            raise UserError(f"a filter is a mapping of attributes to conditions, not {type(wanted).__name__}")
        return cls(tuple(_condition(str(name), wish) for name, wish in sorted(wanted.items())))


def _condition(name: str, wish: Any) -> Condition:
    if isinstance(wish, Mapping):
        if not wish or set(wish) - {"min", "max"}:
            raise UserError(f"filter on {name!r}: {dict(wish)} is not a range; give {FORM}")
        low, high = (_bound(name, wish.get(end, default)) for end, default in (("min", -math.inf), ("max", math.inf)))
        if low > high:
            raise UserError(f"filter on {name!r}: the range from {low} to {high} is empty")
        return Condition(name, low=low, high=high)
    values = wish if isinstance(wish, list | tuple | set | frozenset) else [wish]
    if wrong := [value for value in values if not isinstance(value, str | int | float)]:
        raise UserError(f"filter on {name!r}: {wrong[0]!r} is no value; give {FORM}")
    return Condition(name, values=tuple(sorted(values, key=lambda value: (type(value).__name__, value))))


def _bound(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UserError(f"filter on {name!r}: {value!r} is no number; give {FORM}")
    return value
