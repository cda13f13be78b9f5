"""Start from published weights: safetensors by the names of `train.layouts`, each to its parameter here."""

import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import chz
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from data.errors import UserError
from data.paths import expand
from modules.layers.embedding import ROW_MULTIPLE
from modules.layers.patches import Grid, resize_grid
from train.init_from import STATS, LoadReport, Start, check_regexes, placed
from train.layouts import LAYOUTS, Layout, Rule


@chz.chz
class Pretrained(Start):
    """Every tensor of the file must have its place here, and every parameter under `under` its tensor there."""

    path: str = chz.field(doc="safetensors file, or a folder with one or its parts; may begin with $NAME")
    layout: str = chz.field(doc="names of its tensors: " + ", ".join(LAYOUTS))
    under: str = chz.field(default="", doc="path of the encoder here, such as language")
    interpolate: bool = chz.field(default=False, doc="resize position tables to the ones here")
    grid: tuple[int, int] | None = chz.field(
        default=None, doc="patches down and across here, for interpolating; None: a square"
    )
    fresh: str = chz.field(
        default=r"(^|/)lora_[ab]$", doc="regex of parameters here that keep their fresh values (registers, adapters)"
    )
    ignore: str | None = chz.field(default=None, doc="regex of tensors there to leave, besides those of no use here")

    @chz.validate
    def _check(self) -> None:
        if self.layout not in LAYOUTS:
            near = get_close_matches(self.layout, LAYOUTS, n=1, cutoff=0.0)
            raise ValueError(f"init_from.layout is {self.layout!r}; did you mean {near[0]!r}? There are {[*LAYOUTS]}")
        check_regexes(self.fresh, self.ignore or "")

    @property
    def origin(self) -> str:
        return self.path

    def apply(self, state: dict[str, Any]) -> tuple[dict[str, Any], LoadReport]:
        arrays = state["params"] | {STATS + name: value for name, value in state["stats"].items()}
        values, report = self.match(arrays)
        loaded = {name: placed(values[name], like=arrays[name]) for name in values}
        params = {name: loaded.get(name, old) for name, old in state["params"].items()}
        # A copy: a donated state must not hold one buffer twice.
        ema = {name: params[name].copy() if name in loaded else old for name, old in state["ema"].items()}
        stats = {name: loaded.get(STATS + name, old) for name, old in state["stats"].items()}
        return {**state, "params": params, "stats": stats, "ema": ema}, report

    def match(self, arrays: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], LoadReport]:
        """The values of those `arrays` (anything with a shape) that lie under `under`, and where each is from."""
        with Tensors(self.path, prefixes=LAYOUTS[self.layout].prefixes) as there:
            job = _Job(self, arrays=arrays, there=there, layout=LAYOUTS[self.layout])
            values = {name: value for name in job.wanted if (value := job.value(name)) is not None}
            job.check()
        report = LoadReport(
            loaded=tuple((name, " + ".join(job.sources[name])) for name in values),
            grown=(),
            missing=(),
            surplus=(),
            mismatched=(),
            left_out=tuple(name for name in arrays if name not in values),
        )
        return values, report


@chz.chz
class Several(Start):
    """One after another: a tower each, say."""

    of: tuple[Start, ...]

    @property
    def origin(self) -> str:
        return " and ".join(start.origin for start in self.of)

    def apply(self, state: dict[str, Any]) -> tuple[dict[str, Any], LoadReport]:
        loaded: dict[str, str] = {}
        for start in self.of:
            state, report = start.apply(state)
            loaded |= dict(report.loaded)
        names = (*state["params"], *(STATS + name for name in state["stats"]))
        left = tuple(name for name in names if name not in loaded)
        return state, LoadReport(tuple(loaded.items()), (), (), (), (), left_out=left)


class Tensors:
    """The tensors of one file or of a folder's parts, by name; read when asked for."""

    def __init__(self, path: str, *, prefixes: tuple[str, ...] = ()):
        self.path, self.prefixes = path, prefixes
        self._files = ExitStack()
        self._where: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> "Tensors":
        at = expand(self.path)
        files = sorted(at.glob("*.safetensors")) if at.is_dir() else [at]
        if not files or not files[0].is_file():
            raise UserError(f"no safetensors at {self.path}: name the file, or the folder that holds it")
        for file in files:
            try:
                opened = self._files.enter_context(safe_open(file, framework="numpy"))
            except SafetensorError as error:
                raise UserError(f"{file} is no whole safetensors file ({error}); fetch it again") from None
            names = opened.keys()
            self._where |= {self._short(name): (opened, name) for name in names}
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.close()

    def __iter__(self):
        return iter(self._where)

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> np.ndarray:
        file, stored = self._where[name]
        return np.asarray(file.get_tensor(stored))

    def _short(self, name: str) -> str:
        return next((name.removeprefix(p) for p in self.prefixes if name.startswith(p)), name)


@dataclass(frozen=True)
class _Place:
    """A rule with its numbers filled in."""

    rule: Rule
    sources: tuple[str, ...]


class _Job:
    """One file on its way into one encoder; faults are gathered, to be named together."""

    def __init__(self, config: Pretrained, *, arrays: Mapping[str, Any], there: Tensors, layout: Layout):
        self.config, self.arrays, self.there, self.layout = config, arrays, there, layout
        self.places = {name: place for name in arrays if (place := self._place(name)) is not None}
        self.sources = {name: place.sources for name, place in self.places.items()}
        fresh = {name for name in arrays if re.search(config.fresh, name)}
        self.wanted = [name for name in self.places if name not in fresh]
        own = [name for name in arrays if self._inner(name) is not None and name not in fresh]
        self.homeless = [name for name in own if name not in self.places]
        self.missing: set[str] = set()
        self.shapes: list[str] = []
        if not self.wanted:
            raise UserError(
                f"no parameter under {config.under or 'the model'!r} is of layout {config.layout}: "
                f"set init_from.under to the encoder's path; the first parameter is {next(iter(arrays), None)}"
            )

    def value(self, name: str) -> np.ndarray | None:
        """What the file has for one parameter; None where it does not fit, which is noted."""
        rule, sources = self.places[name].rule, self.places[name].sources
        absent = [source for source in sources if source not in self.there]
        if absent:
            self.missing |= set(absent)
            return None
        value, shape = rule.make(*(self.there[source] for source in sources)), tuple(self.arrays[name].shape)
        if value.shape != shape:
            value = self._fitted(value, rule=rule, shape=shape)
        if value.shape != shape:
            hint = "; set init_from.interpolate" if rule.fit in ("grid", "line") and not self.config.interpolate else ""
            self.shapes.append(f"{sources[0]} gives {value.shape}, {name} is {shape}{hint}")
            return None
        return value

    def check(self) -> None:
        used = {source for sources in self.sources.values() for source in sources}
        unused = [*self.layout.unused, *([self.config.ignore] if self.config.ignore else [])]
        surplus = [n for n in self.there if n not in used and not any(re.fullmatch(regex, n) for regex in unused)]
        faults = (
            ("missing there", sorted(self.missing)),
            ("surplus there (init_from.ignore leaves them)", sorted(surplus)),
            ("not of this layout here (init_from.fresh keeps them as they are)", self.homeless),
            ("of another shape", self.shapes),
        )
        if found := [f"  {what}: {', '.join(names)}" for what, names in faults if names]:
            head = (
                f"{self.config.path} does not fit layout {self.config.layout} under {self.config.under or 'the model'}:"
            )
            raise UserError("\n".join([head, *found]))

    def _inner(self, name: str) -> str | None:
        """The name within the encoder, of statistics with their mark before it."""
        mark = STATS if name.startswith(STATS) else ""
        inner = name.removeprefix(mark)
        if not self.config.under:
            return name
        under = self.config.under.strip("/") + "/"
        return mark + inner.removeprefix(under) if inner.startswith(under) else None

    def _place(self, name: str) -> _Place | None:
        inner = self._inner(name)
        for rule in self.layout.rules if inner is not None else ():
            pattern = re.escape(rule.here).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)")
            if found := re.fullmatch(pattern, inner or ""):
                return _Place(rule, tuple(source.format(**found.groupdict()) for source in rule.there))
        return None

    def _fitted(self, value: np.ndarray, *, rule: Rule, shape: tuple[int, ...]) -> np.ndarray:
        if rule.fit == "rows" and value.shape[1:] == shape[1:] and 0 < shape[0] - len(value) < ROW_MULTIPLE:
            return np.pad(value, ((0, shape[0] - len(value)), (0, 0)))
        if rule.fit in ("grid", "line") and self.config.interpolate and value.shape[1:] == shape[1:]:
            old, new = (len(value), 1), (shape[0], 1)
            if rule.fit == "grid":
                old, new = _square(len(value)), self.config.grid or _square(shape[0])
                if new[0] * new[1] != shape[0]:
                    raise UserError(f"init_from.grid is {new}, but there are {shape[0]} patches here")
            return np.asarray(resize_grid(jnp.asarray(value), old=old, new=new))
        return value


def _square(count: int) -> Grid:
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(f"{count} positions are no square: set init_from.grid to the patches down and across")
    return side, side
