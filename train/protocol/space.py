"""What a search may change: dotted names of an experiment's fields, each with its choices or its range."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import chz

from data.errors import UserError
from train.experiment import Experiment
from train.snapshot import TYPE, dump, load

Overrides = Mapping[str, Any]
"""Dotted name of a field to its value. Positions of a tuple and keys of a mapping are parts of the name."""


@chz.chz
class Dimension:
    """What one field may be."""

    def distribution(self) -> Any:
        """In the search library's words. It knows choices by their position, since lists are not its values."""
        raise NotImplementedError(f"{type(self).__name__} does not define distribution")

    def value(self, drawn: Any) -> Any:
        """The field's value for what the library drew."""
        return drawn


@chz.chz
class Choices(Dimension):
    values: tuple[Any, ...] = chz.field(doc="numbers, words, or tuples of them")

    @chz.validate
    def _several(self):
        if not self.values:
            raise ValueError("a choice needs values")

    def distribution(self) -> Any:
        import optuna  # an optional extra, which only a search needs

        return optuna.distributions.CategoricalDistribution(tuple(range(len(self.values))))

    def value(self, drawn: Any) -> Any:
        return self.values[drawn]


@chz.chz
class Range(Dimension):
    low: float
    high: float
    log: bool = chz.field(default=False, doc="by factors rather than by differences")

    @chz.validate
    def _ascends(self):
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range from {self.low} to {self.high} is empty, or starts at 0 with log")

    def distribution(self) -> Any:
        import optuna

        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: Any) -> Any:
        return float(f"{drawn:.4g}")  # what a person can write down again


Space = Mapping[str, Dimension]


def overridden(experiment: Experiment, overrides: Overrides) -> Experiment:
    """`experiment` with these fields changed; names and types are checked."""
    stored = dump(experiment)
    for name, value in overrides.items():
        _put(stored, name, dump(value))
    return load(stored)


def _put(stored: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    place = stored
    for part in path:
        place = place[_key(place, part, name=name)]
    key = _key(place, last, name=name)
    old = place[key]
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if old is not None and value is not None and type(old) is not type(value):
        raise UserError(f"{name} is {old!r}; {value!r} of the search space is of another type")
    place[key] = value


def _key(place: Any, part: str, *, name: str) -> str | int:
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        return int(part)
    known = [key for key in place if key != TYPE] if isinstance(place, dict) else []
    if part not in known:
        near = get_close_matches(part, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known) or 'none'}"
        raise UserError(f"the search space names {name!r}, but there is no field {part!r}: {hint}")
    return part


def words(overrides: Overrides) -> str:
    """The overrides as a command line would take them; "as published" where there are none."""
    shown = (
        f"{name}={','.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
        for name, value in overrides.items()
    )
    return " ".join(shown) or "as published"
