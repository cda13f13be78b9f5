"""When a behaviour happened, relative to the target: by rank, or by the gap in time."""

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.base import Batch, Features

TARGET = 0
"""Distance of the target from itself."""


@chz.chz
class TimeGaps:
    """Gaps in time as buckets."""

    feature: str = chz.field(doc="sequence of numbers: how long before the impression each behaviour was")
    edges: tuple[float, ...] = chz.field(doc="rising bounds of the buckets, in the feature's unit as the model gets it")

    @chz.validate
    def _edges_rise(self):
        if not self.edges or list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges {self.edges} do not rise; give the bounds between time buckets, lowest first")


class TemporalEncoding(nnx.Module):
    """A learned vector per distance from the target, which itself is at distance 0.

    By rank, the newest behaviour is at distance 1. By gaps, those below the first edge are.
    """

    def __init__(self, length: int, *, dim: int, gaps: TimeGaps | None = None, std: float = 1e-2, rngs: nnx.Rngs):
        self.gaps = gaps
        rows = 1 + (length if gaps is None else len(gaps.edges) + 1)
        self.vectors = nnx.Param(nnx.initializers.normal(std)(rngs.params(), (rows, dim)))

    def __call__(self, distances: Int[Array, "u t"]) -> Float[Array, "u t d"]:
        return self.vectors[distances]

    @property
    def target(self) -> Float[Array, "1 d"]:
        return self.vectors[TARGET][None]

    def distances(self, mask: Bool[Array, "u t"], *, batch: Batch) -> Int[Array, "u t"]:
        """At least 1 everywhere; what stands at masked positions means nothing."""
        if self.gaps is None:
            count = mask.sum(axis=1, dtype=jnp.int32)
            return jnp.maximum(count[:, None] - jnp.arange(mask.shape[1], dtype=jnp.int32)[None, :], 1)
        edges = jnp.asarray(self.gaps.edges, batch[self.gaps.feature].dtype)
        return 1 + jnp.searchsorted(edges, batch[self.gaps.feature], side="right").astype(jnp.int32)


def without_gaps(features: Features, *, gaps: TimeGaps | None) -> Features:
    """The features that are embedded; a sequence of gaps says when, and is none of them."""
    if gaps is None:
        return features
    f = features[gaps.feature]
    if f.kind != "sequence" or f.size or len(f.shape) != 1:
        raise ValueError(f"{f.name!r} is no sequence of numbers, so it cannot say how long ago behaviours were")
    return features.select(names=tuple(other.name for other in features if other.name != f.name))


def check_lengths(lengths: tuple[int, ...], *, features: Features, gaps: TimeGaps | None) -> None:
    if gaps is not None and set(lengths) != {features[gaps.feature].max_len}:
        raise ValueError(
            f"{gaps.feature!r} holds {features[gaps.feature].max_len} positions, the histories "
            f"{', '.join(map(str, lengths))}; declare them of one length"
        )
