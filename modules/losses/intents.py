"""Intents that histories share, as contrastive losses (Qin et al., WSDM 2024)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modules.losses.contrastive import softmax_contrastive


def coarse_intents(
    a: Float[Array, "b d"],
    b: Float[Array, "b d"],
    targets: Int[Array, "b"],
    *,
    temperature: float = 1.0,
    masked: bool = True,
    where: Bool[Array, "b"] | None = None,
    chunk: int | None = None,
    axis: str = "data",
) -> Float[Array, ""]:
    """InfoNCE of 2b histories whose positives are the other view: both views of all rows are there to be told apart.

    `masked`: rows of the same target are no negatives. A history is never its own negative.
    """
    labels = targets if masked else jnp.arange(a.shape[0])
    return softmax_contrastive(
        jnp.concatenate([a, b]),
        jnp.concatenate([b, a]),
        scale=1 / temperature,
        labels=jnp.concatenate([labels, labels]),
        where=None if where is None else jnp.concatenate([where, where]),
        symmetric=False,
        chunk=chunk,
        axis=axis,
    )


def fine_intents(
    x: Float[Array, "b d"],
    centres: Float[Array, "k d"],
    *,
    temperature: float = 1.0,
    masked: bool = True,
    where: Bool[Array, "b"] | None = None,
    chunk: int | None = None,
    axis: str = "data",
) -> Float[Array, ""]:
    """InfoNCE of a history and the centre nearest to it, among those of the batch.

    `masked`: another row of the same cluster is no negative. Centres are unit vectors and get no gradient.
    """
    centres = jax.lax.stop_gradient(centres)
    cluster = jnp.argmax(jax.lax.stop_gradient(x) @ centres.T, axis=1)
    return softmax_contrastive(
        x,
        centres[cluster],
        scale=1 / temperature,
        labels=cluster if masked else None,
        where=where,
        symmetric=False,
        chunk=chunk,
        axis=axis,
    )
