"""Joining vectors of one batch, some of which may belong to all of its rows.

In a request, one user meets many candidates: what depends on the user alone has a leading dimension of 1 and what
depends on the candidate has one row each. Such arrays are broadcast at the last moment, so that the user's part is
computed once.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def side_by_side(parts: Sequence[jax.Array]) -> Float[Array, "b d"]:
    """Joined along the last axis; a part whose leading dimension is 1 serves every row."""
    return jnp.concatenate(_same_rows(parts), axis=-1)


def stacked(parts: Sequence[jax.Array]) -> Float[Array, "b f d"]:
    """Vectors [b, d] or [1, d] as the fields of one array."""
    return jnp.stack(_same_rows(parts), axis=1)


def _same_rows(parts: Sequence[jax.Array]) -> list[jax.Array]:
    rows = max(p.shape[0] for p in parts)
    return [p if p.shape[0] == rows else jnp.broadcast_to(p, (rows, *p.shape[1:])) for p in parts]
