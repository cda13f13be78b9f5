"""What an artefact says of itself, read without modules/ or train/."""

import hashlib
from collections.abc import Collection, Mapping
from types import ModuleType
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
    """Rebuilds a features declaration."""
    features = from_json(stored, modules=(data.features,), what="the features declaration")
    if not isinstance(features, Features):
        raise UserError("the features declaration is damaged: it does not hold Features")
    return features


def from_json(stored: Any, *, modules: Collection[ModuleType], what: str) -> Any:
    """Rebuilds configs; unlike train.snapshot it knows the classes of these modules alone and imports nothing."""
    known = {module.__name__: module for module in modules}

    def build(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(build(v) for v in value)
        if not isinstance(value, dict):
            return value
        fields = {k: build(v) for k, v in value.items() if k != "$type"}
        if "$type" not in value:
            return fields
        module, _, name = str(value["$type"]).partition(":")
        cls = getattr(known.get(module), name, None)
        if cls is None or not chz.is_chz(cls):
            raise UserError(f"{what} names {value['$type']!r}, which this version does not have")
        unknown = sorted(set(fields) - set(cls.__chz_fields__))
        if unknown:
            raise UserError(f"{what}: {name} has no field {unknown[0]!r} in this version")
        return cls(**fields)

    return build(stored)
