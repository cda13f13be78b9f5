"""The one interface between data and models.

A model is an `nnx.Module` that maps a batch (a dict of arrays) to outputs (a dict of arrays). It is made by
its config from the features that a data source declares, and it knows neither labels nor losses.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

Batch = Mapping[str, jax.Array]
Outputs = dict[str, jax.Array]

AUX_LOSS = "aux_loss/"
"""Outputs under this prefix are scalar losses of the model's own that every task adds to its loss."""

AUX_LOGIT = "aux_logit/"
"""Training outputs [b] under this prefix are further heads on the task's label, whose loss the task adds."""


@runtime_checkable
class FeatureSpec(Protocol):
    """What a model may ask of one feature; `data.features` declares the concrete kinds."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...  # categorical | multihot | sequence | numeric | dense | image | text
    @property
    def role(self) -> str: ...  # user | item | context
    @property
    def table(self) -> str: ...  # features of one table share their embedding rows
    @property
    def size(self) -> int: ...  # rows of that table; 0 where ids make no sense
    @property
    def max_len(self) -> int: ...  # positions of a sequence, multi-hot or text; 0 otherwise
    @property
    def shape(self) -> tuple[int, ...]: ...  # of one example's main array


@runtime_checkable
class Features(Protocol):
    """The inputs a source declares, in order; labels, weights and groups are not among them."""

    def __iter__(self) -> Iterator[FeatureSpec]: ...
    def __getitem__(self, name: str) -> FeatureSpec: ...
    def __contains__(self, name: object) -> bool: ...
    def select(
        self, *, kinds: tuple[str, ...] = (), roles: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> "Features": ...


class Model(nnx.Module):
    """`rngs=None` means inference: no dropout, running statistics."""

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


@chz.chz
class ModelConfig:
    """Hyper-parameters of one model, written beside it."""

    def make(self, features: Features, *, rngs: nnx.Rngs) -> Model:
        raise NotImplementedError(f"{type(self).__name__} does not define make")


def valid(batch: Batch, name: str) -> Bool[Array, "b t"]:
    """True at the positions of sequence, multi-hot or text `name` that hold something.

    Positions run from the oldest to the newest and padding stands at the end.
    """
    width = batch[name].shape[1]
    return jnp.arange(width)[None, :] < batch[f"{name}/length"][:, None]


def history_of_ids(features: Features, name: str, *, model: str) -> FeatureSpec:
    """The feature that a next-item model reads, refused where it is not a sequence of ids."""
    history = features[name]
    if history.kind != "sequence" or not history.size:
        kind = "one of numbers" if history.kind == "sequence" else history.kind
        raise ValueError(f"{model} reads a sequence of ids, but {name!r} is {kind}")
    return history
