"""What an artefact says of itself, read without modules/ or train/."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import chz
import jax
import numpy as np

import data.features
from data.errors import UserError
from data.features import Features
from data.manifest import digest
from serve.forward import Inputs

FORMAT = 1

Step = int | Literal["best", "latest"]
"""Which checkpoint of a workdir."""


def weights_version(weights: Mapping[str, np.ndarray], *, step: int, config: str) -> str:
    """Of a checkpoint, as its vectors carry it: step, and digest of config and weights. An artefact has the same."""
    content = {name: _bytes_digest(a) for name, a in weights.items()}
    return f"{step:08d}-{digest({**content, 'config': config})}"


def _bytes_digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def spec_json(inputs: Inputs) -> dict[str, Any]:
    return {name: {"shape": ["b", *shape], "dtype": str(np.dtype(dtype))} for name, (shape, dtype) in inputs.items()}


def spec_from_json(stored: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (tuple(s["shape"][1:]), jax.numpy.dtype(s["dtype"])) for name, s in stored.items()}


def features_from_json(stored: Any) -> Features:
    """Rebuilds a features declaration; unlike train.snapshot it knows the classes of data.features alone."""

    def build(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(build(v) for v in value)
        if not isinstance(value, dict):
            return value
        module, _, name = str(value.get("$type", "")).partition(":")
        cls = getattr(data.features, name, None) if module == "data.features" else None
        if cls is None or not chz.is_chz(cls):
            raise UserError(f"the features declaration names {value.get('$type')!r}, which this version does not have")
        return cls(**{k: build(v) for k, v in value.items() if k != "$type"})

    features = build(stored)
    if not isinstance(features, Features):
        raise UserError("the features declaration is damaged: it does not hold Features")
    return features
