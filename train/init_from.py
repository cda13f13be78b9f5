"""Start from another run's weights: which parameter takes which, and a list of what was and was not loaded.

Names of running statistics are listed with "stats/" before them; `rename`, `include` and `exclude` see them so.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import chz
import jax
import numpy as np

from data.errors import UserError
from train.checkpoint import Report, load_weights
from train.workdir import Workdir

Arrays = dict[str, jax.Array]
STATS = "stats/"


@dataclass(frozen=True)
class LoadReport:
    loaded: tuple[tuple[str, str], ...]  # (name here, name there)
    grown: tuple[tuple[str, tuple, tuple], ...]  # (name, shape there, shape here): the first rows were loaded
    missing: tuple[str, ...]  # here, not there: these keep their fresh values
    surplus: tuple[str, ...]  # there, not here
    mismatched: tuple[tuple[str, tuple, tuple], ...]  # (name, shape there, shape here): fresh values
    left_out: tuple[str, ...]  # by include and exclude

    @property
    def complete(self) -> bool:
        return not (self.grown or self.missing or self.surplus or self.mismatched)

    def lines(self) -> list[str]:
        """A table of what happened to each name, and a line of counts."""
        rows = [("loaded", here, f"from {there}" if there != here else "") for here, there in self.loaded]
        rows += [
            ("grown", name, f"{there} -> {here}, first {there[0]} rows loaded, others fresh")
            for name, there, here in self.grown
        ]
        rows += [("shape", name, f"{there} there, {here} here; fresh") for name, there, here in self.mismatched]
        rows += [("missing", name, "not there; fresh") for name in self.missing]
        rows += [("surplus", name, "not here; dropped") for name in self.surplus]
        rows += [("left out", name, "by include/exclude") for name in self.left_out]
        width = max((len(name) for _, name, _ in rows), default=0)
        table = [f"  {what:<8}  {name:<{width}}  {note}".rstrip() for what, name, note in rows]
        return [*table, f"  {self.counts()}"]

    def counts(self) -> str:
        parts: list[tuple[str, tuple[object, ...]]]
        parts = [("loaded", self.loaded), ("grown", self.grown), ("of another shape", self.mismatched)]
        parts += [("missing", self.missing), ("surplus", self.surplus), ("left out", self.left_out)]
        return ", ".join(f"{len(part)} {name}" for name, part in parts if part or name == "loaded")


@chz.chz
class Start:
    """Weights to start from, in place of fresh ones."""

    @property
    def origin(self) -> str:
        """Where they are from, in words."""
        raise NotImplementedError(f"{type(self).__name__} does not define origin")

    def apply(self, state: dict[str, Any]) -> tuple[dict[str, Any], LoadReport]:
        """A train state with their params and stats; the optimizer, the step and the key stay fresh."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply")


@chz.chz
class InitFrom(Start):
    workdir: str = chz.field(doc="the run whose weights are taken")
    step: int | Literal["best", "latest"] = chz.field(default="best", doc="best, latest or the number of a step")
    rename: tuple[tuple[str, str], ...] = chz.field(
        default=(), doc="(regex, replacement) pairs that turn its names into names here, in order"
    )
    include: str = chz.field(default="", doc="regex: load only names here that contain it")
    exclude: str | None = chz.field(default=None, doc="regex: never load names here that contain it")
    grow_rows: bool = chz.field(
        default=False, doc="load the first rows of a table that has grown; right only if the new rows are the last"
    )
    strict: bool = chz.field(default=False, doc="refuse anything missing, surplus, grown or of another shape")

    @chz.validate
    def _check(self) -> None:
        if isinstance(self.step, str) and self.step not in ("best", "latest"):
            raise ValueError(f"init_from.step is {self.step!r}; give best, latest or a number")
        check_regexes(*(regex for regex, _ in self.rename), self.include, self.exclude or "")

    @property
    def origin(self) -> str:
        return self.workdir

    def load(self, *, report: Report | None = None) -> dict[str, dict[str, np.ndarray]]:
        """The weights of the other run: {"params", "stats", "ema"}."""
        source = Workdir(Path(self.workdir), access="read")
        return load_weights(source.checkpoints, step=self.step, report=report)

    def apply(
        self, state: dict[str, Any], *, source: dict[str, dict[str, np.ndarray]] | None = None
    ) -> tuple[dict[str, Any], LoadReport]:
        """A train state with the other run's params and stats; the optimizer, the step and the key stay fresh.

        An average of the parameters goes on from the other run's, or starts at the loaded parameters.
        """
        source = self.load() if source is None else source
        stats = {STATS + name: value for name, value in state["stats"].items()}
        there = source["params"] | {STATS + name: value for name, value in source["stats"].items()}
        values, report = self.match(state["params"] | stats, source=there)
        params = {name: values[name] for name in state["params"]}
        averages = {name: source["ema"][other] for name, other in report.loaded if other in source["ema"]}
        ema = {
            # A copy: a donated state must not hold one buffer twice.
            name: placed(averages[name], like=old) if name in averages else params[name].copy()
            for name, old in state["ema"].items()
        }
        return {**state, "params": params, "stats": {n: values[STATS + n] for n in state["stats"]}, "ema": ema}, report

    def match(self, arrays: Arrays, *, source: dict[str, np.ndarray]) -> tuple[Arrays, LoadReport]:
        """New values for `arrays`, a flat dict, each with the dtype and placement it had."""
        there = self._renamed(source)
        result, loaded, grown, mismatched = dict(arrays), [], [], []
        wanted = [name for name in arrays if self._wanted(name)]
        for name in wanted:
            if name not in there:
                continue
            original, value = there[name]
            here = arrays[name]
            if value.shape == here.shape:
                result[name] = placed(value, like=here)
                loaded.append((name, original))
            elif self.grow_rows and value.ndim and value.shape[1:] == here.shape[1:] and len(value) < len(here):
                result[name] = _first_rows(value, like=here)
                grown.append((name, value.shape, here.shape))
            else:
                mismatched.append((name, value.shape, here.shape))
        report = LoadReport(
            loaded=tuple(loaded),
            grown=tuple(grown),
            missing=tuple(name for name in wanted if name not in there),
            surplus=tuple(original for name, (original, _) in there.items() if name not in arrays),
            mismatched=tuple(mismatched),
            left_out=tuple(name for name in arrays if name not in wanted),
        )
        if self.strict and not report.complete:
            raise UserError("\n".join([f"init_from {self.workdir} is strict and does not match:", *report.lines()]))
        if arrays and not (loaded or grown):
            hint = f"init_from {self.workdir} loaded nothing; mend rename, include or exclude:"
            raise UserError("\n".join([hint, *report.lines()]))
        return result, report

    def _wanted(self, name: str) -> bool:
        return bool(re.search(self.include, name)) and not (self.exclude and re.search(self.exclude, name))

    def _renamed(self, source: dict[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
        """Name here -> (name there, value)."""
        renamed: dict[str, tuple[str, np.ndarray]] = {}
        for original, value in source.items():
            name = original
            for regex, replacement in self.rename:
                name = re.sub(regex, replacement, name)
            if name in renamed:
                raise UserError(f"init_from.rename turns both {renamed[name][0]} and {original} into {name}")
            renamed[name] = (original, value)
        return renamed


def placed(value: np.ndarray, *, like: jax.Array) -> jax.Array:
    host = np.asarray(value).astype(like.dtype)
    return jax.make_array_from_callback(host.shape, like.sharding, lambda index: host[index])


def _first_rows(value: np.ndarray, *, like: jax.Array) -> jax.Array:
    put = jax.jit(lambda old, rows: old.at[: len(rows)].set(rows.astype(old.dtype)), out_shardings=like.sharding)
    return put(like, np.asarray(value))


def check_regexes(*regexes: str) -> None:
    for regex in regexes:
        try:
            re.compile(regex)
        except re.error as error:
            raise ValueError(f"init_from: {regex!r} is not a regular expression ({error})") from None
