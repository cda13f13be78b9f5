"""Maps that `python -m serve calibrate` fitted, applied on the host; train/calibration.py says what they are.

A test holds both ways to apply a map to each other.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError

Map = Callable[[np.ndarray], np.ndarray]

CLIP = 1e-7
"""As in train/calibration.py."""


def read_map(stored: Any, *, path: Path) -> tuple[str, Map]:
    """The score that a file calibrates, and its map."""
    if not isinstance(stored, dict) or "calibration" not in stored or "score" not in stored:
        raise UserError(f"{path} is no calibration; python -m serve calibrate WORKDIR writes one")
    kind, by = str(stored["calibration"].get("$type", "")).rpartition(":")[2], stored["calibration"]
    if kind == "Temperature":
        return str(stored["score"]), _temperature(float(by["temperature"]))
    if kind == "Isotonic":
        return str(stored["score"]), _isotonic(np.array(by["score"], np.float64), np.array(by["rate"], np.float64))
    raise UserError(f"{path} holds a calibration of kind {kind!r}, which this version does not apply")


def _temperature(temperature: float) -> Map:
    def apply(score: np.ndarray) -> np.ndarray:
        p = np.clip(score, CLIP, 1 - CLIP)
        return 1.0 / (1.0 + np.exp(-(np.log(p) - np.log1p(-p)) / temperature))

    return apply


def _isotonic(knots: np.ndarray, rates: np.ndarray) -> Map:
    def apply(score: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(score), np.nan, np.interp(score, knots, rates))

    return apply
