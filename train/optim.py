"""The optimizer of a run, as a config: an optax chain for the dense parameters, a row rule for sparse tables.

Parameters are flat dicts from path to array. Every pattern is a regular expression searched in the path, and one
that matches nothing is refused, so that a renamed layer does not silently lose its setting.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import chz
import jax
import jax.numpy as jnp
import optax

from data.errors import UserError
from train.rowwise import LazyAdam, RowRule

Params = Mapping[str, Any]
"""Path to anything with a shape."""

Algorithm = Literal["adam", "adamw", "sgd", "adagrad", "rmsprop", "lion", "lamb"]

# The settings that each algorithm reads, with its usual values.
SETTINGS: dict[str, dict[str, float]] = {
    "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    "adamw": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    "lamb": {"b1": 0.9, "b2": 0.999, "eps": 1e-6},
    "lion": {"b1": 0.9, "b2": 0.99},
    "rmsprop": {"b2": 0.9, "eps": 1e-8},
    "adagrad": {"eps": 1e-7},
    "sgd": {"momentum": 0.0},
}


@chz.chz
class Optimizer:
    """How parameters follow their gradients.

    `l2` is coupled, as the BARS benchmark has it: before clipping and the algorithm, over whole tables at every step.
    Its figures are claimed with dense tables, where that is exact. Under Adam it has no closed form for the steps
    that a row-sparse table skips (each would change both moments), so there it is refused: large tables take
    `row_rule.decay`, which is decoupled, lazy and exact.
    """

    algorithm: Algorithm = "adam"
    lr: float = chz.field(default=1e-3, doc="learning rate at its highest")
    lr_schedule: Literal["constant", "cosine", "linear", "rsqrt"] = chz.field(
        default="constant", doc="how the learning rate falls after warm-up, over the run's steps"
    )
    warmup_steps: int = chz.field(default=0, doc="steps over which the learning rate rises to lr")
    final_scale: float = chz.field(default=0.0, doc="share of lr that cosine and linear end at")
    b1: float | None = chz.field(default=None, doc="decay of the first moment; None: usual of the algorithm")
    b2: float | None = chz.field(default=None, doc="decay of the second moment; None: usual of the algorithm")
    eps: float | None = chz.field(default=None, doc="None: usual of the algorithm")
    momentum: float | None = chz.field(default=None, doc="of sgd")
    weight_decay: float = chz.field(default=0.0, doc="decoupled from the gradient, times the learning rate")
    decay: str = chz.field(default=r"(^|/)kernel$", doc="regex of the parameters that decay")
    l2: tuple[tuple[str, float], ...] = chz.field(
        default=(),
        doc="(regex, lambda): the gradient of lambda/2 * ||w||^2 joins that of the loss; the first match wins",
    )
    lr_scale: tuple[tuple[str, float], ...] = chz.field(
        default=(), doc="(regex, factor) of learning rates; the first match wins; 0 freezes"
    )
    clip_norm: float | None = chz.field(default=None, doc="highest global norm of the gradients, tables included")
    accumulate: int = chz.field(default=1, doc="micro-batches of one update")
    ema: float | None = chz.field(default=None, doc="decay of averaged parameters for evaluation and serving")
    rows: tuple[str, ...] = chz.field(default=(), doc="regexes of the tables of which only the rows read are updated")
    row_rule: RowRule = chz.field(
        default_factory=LazyAdam, blueprint_unspecified=LazyAdam, doc="how those rows are updated"
    )

    @chz.validate
    def _check(self) -> None:
        known = SETTINGS[self.algorithm]
        for name in ("b1", "b2", "eps", "momentum"):
            if getattr(self, name) is not None and name not in known:
                raise ValueError(f"optimizer.{name} is not a setting of {self.algorithm}, which has {', '.join(known)}")
        if self.algorithm == "adam" and self.weight_decay:
            raise ValueError("optimizer.weight_decay is not part of adam; use optimizer.algorithm=adamw")
        if self.accumulate < 1:
            raise ValueError(f"optimizer.accumulate is {self.accumulate}; give at least 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"optimizer.ema is {self.ema}; give a number between 0 and 1, or None for none")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"optimizer.clip_norm is {self.clip_norm}; give a positive number, or None for none")
        if self.lr_schedule == "rsqrt" and not self.warmup_steps:
            raise ValueError("optimizer.lr_schedule=rsqrt falls from warmup_steps on; set optimizer.warmup_steps")
        if any(strength < 0 for _, strength in self.l2):
            raise ValueError("optimizer.l2 holds a negative lambda; give numbers from 0 on")
        self._check_row_rule()
        for regex in (self.decay, *self.rows, *(regex for regex, _ in (*self.lr_scale, *self.l2))):
            try:
                re.compile(regex)
            except re.error as error:
                raise ValueError(f"optimizer: {regex!r} is not a regular expression: {error}") from error

    def _check_row_rule(self) -> None:
        for name in ("decay", "mini_batch_aware"):
            if getattr(self.row_rule, name) and not self.rows:
                raise ValueError(f"optimizer.row_rule.{name} is of row-sparse tables; name some in optimizer.rows")
        highest = self.lr * max((1.0, *(factor for _, factor in self.lr_scale)))
        if highest * self.row_rule.decay >= 1:
            raise ValueError(
                f"optimizer.row_rule.decay={self.row_rule.decay} times a learning rate of {highest} is 1 or more"
            )

    def schedule(self, steps: int) -> Callable[[jax.Array | int], jax.Array]:
        """Step (from 0) to learning rate, in a run of `steps`."""
        warmup = self.warmup_steps
        if warmup > steps:
            raise UserError(f"optimizer.warmup_steps={warmup} is more than the run's {steps} steps; lower it")
        span = max(steps - warmup, 1)

        def rate(step):
            step = jnp.asarray(step, jnp.float32)
            done = jnp.clip((step - warmup) / span, 0.0, 1.0)
            low = self.final_scale
            fall = {
                "constant": lambda: jnp.ones(()),
                "linear": lambda: 1 - (1 - low) * done,
                "cosine": lambda: low + (1 - low) * 0.5 * (1 + jnp.cos(math.pi * done)),
                "rsqrt": lambda: jnp.sqrt(warmup / jnp.maximum(step, warmup)),
            }[self.lr_schedule]()
            # The first step is not wasted on a rate of zero.
            rise = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
            return self.lr * fall * rise

        return rate

    def row_params(self, params: Params) -> set[str]:
        """Paths of the row-sparse tables among all parameters."""
        found: set[str] = set()
        for regex in self.rows:
            for path in _matching(regex, params, field="optimizer.rows"):
                if len(params[path].shape) != 2:
                    raise UserError(
                        f"optimizer.rows: {regex!r} matches {path} of shape {tuple(params[path].shape)}; "
                        "only tables [rows, width] are row-sparse"
                    )
                found.add(path)
        return found

    def lr_scales(self, params: Params) -> dict[str, float]:
        """Factor of the learning rate of each of all parameters."""
        for regex, _ in self.lr_scale:
            _matching(regex, params, field="optimizer.lr_scale")
        return {path: self._factor(path) for path in params}

    def l2_of(self, params: Params) -> dict[str, float]:
        """The strength of coupled L2 of each of all parameters that has one."""
        for regex, _ in self.l2:
            _matching(regex, params, field="optimizer.l2")
        found = {path: next((s for regex, s in self.l2 if re.search(regex, path)), 0.0) for path in params}
        if sparse := sorted(path for path in self.row_params(params) if found[path]):
            raise UserError(
                f"optimizer.l2 needs every row of {sparse[0]} at each step, but optimizer.rows keeps it row-sparse: "
                f"use optimizer.row_rule.decay, or take it out of optimizer.rows"
            )
        return {path: strength for path, strength in found.items() if strength}

    def make(self, params: Params, *, steps: int, among: Params | None = None) -> optax.GradientTransformation:
        """Updates of the dense parameters; `among` are all, by which patterns are checked.

        Clipping is the caller's, who alone sees the row gradients too.
        """
        if among is not None or not self.rows:
            self.lr_scales(among or params)
        factors = {path: self._factor(path) for path in params}
        parts = [self._direction()]
        if self.weight_decay:
            decayed = set(_matching(self.decay, among or params, field="optimizer.decay"))
            parts.append(optax.add_decayed_weights(self.weight_decay, mask={p: p in decayed for p in params}))
        if self.algorithm == "lamb":
            parts.append(optax.scale_by_trust_ratio())
        if set(factors.values()) - {0.0, 1.0}:
            parts.append(_scale_each(factors))
        chain = optax.chain(*parts, optax.scale_by_learning_rate(self.schedule(steps)))
        if 0.0 not in factors.values():
            return chain
        labels = {path: "trained" if factor else "frozen" for path, factor in factors.items()}
        return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, labels)

    def _direction(self) -> optax.GradientTransformation:
        own = {name: getattr(self, name) for name in SETTINGS[self.algorithm] if getattr(self, name) is not None}
        s = SETTINGS[self.algorithm] | own
        if self.algorithm in ("adam", "adamw", "lamb"):
            return optax.scale_by_adam(b1=s["b1"], b2=s["b2"], eps=s["eps"])
        if self.algorithm == "lion":
            return optax.scale_by_lion(b1=s["b1"], b2=s["b2"])
        if self.algorithm == "rmsprop":
            return optax.scale_by_rms(decay=s["b2"], eps=s["eps"])
        if self.algorithm == "adagrad":
            return optax.scale_by_rss(eps=s["eps"])
        return optax.trace(decay=s["momentum"]) if s["momentum"] else optax.identity()

    def _factor(self, path: str) -> float:
        return next((factor for regex, factor in self.lr_scale if re.search(regex, path)), 1.0)


def _matching(regex: str, paths: Iterable[str], *, field: str) -> list[str]:
    paths = list(paths)
    found = [path for path in paths if re.search(regex, path)]
    if not found:
        near = get_close_matches(regex, paths, n=1, cutoff=0.0)
        raise UserError(f"{field}: {regex!r} matches no parameter" + (f"; the nearest is {near[0]}" if near else ""))
    return found


def _scale_each(factors: Mapping[str, float]) -> optax.GradientTransformation:
    def update(updates, params=None):
        # Under a partition only the trained leaves are arrays; the others are empty nodes.
        return {path: jax.tree.map(lambda u, f=factors[path]: u * f, tree) for path, tree in updates.items()}

    return optax.stateless(update)
