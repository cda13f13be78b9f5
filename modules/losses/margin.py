"""Large-margin classification over many classes, whose matrix stays where its rows live.

CosFace (Wang et al., CVPR 2018): the cosine with the own class loses `margin` before the softmax. ArcFace (Deng et
al., CVPR 2019): the angle gains it. Partial FC (An et al., ICCVW 2021): beside the classes of the batch only a random
share of the others takes part in a step.

With the classes split over a mesh axis no device sees another's rows: the labels' logits and the softmax's sums are
exchanged, as many numbers as there are rows in the batch.
"""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from modules.layers.similarity import unit

Kind = Literal["cosface", "arcface"]

LOWEST = -1e30
GROUPS = 8
"""Classes are drawn within this many equal parts of the matrix, so that the draw does not depend on the devices."""


class Share(NamedTuple):
    """The share of the classes that take part, and the key by which they are drawn."""

    of: float
    key: Array


def large_margin(
    x: Float[Array, "n d"],
    classes: Float[Array, "c d"],
    *,
    labels: Int[Array, "n"],
    scale: float = 64.0,
    margin: float = 0.4,
    kind: Kind = "cosface",
    count: int | None = None,
    share: Share | None = None,
    axes: tuple[str, str] = ("data", "model"),
) -> Float[Array, ""]:
    """-log of the softmax of scale cos(x, class) at the row's own class, after its margin; mean over the rows.

    A negative label is a row without class, which does not count. A label past `count`, the rows of `classes` that
    are classes (default: all), gives NaN. `axes` are those over which rows of `x` and of `classes` are split.
    """
    count = classes.shape[0] if count is None else count
    rows, columns = axes
    mesh = jax.sharding.get_abstract_mesh()
    sum_of = functools.partial(_sum_of, scale=scale, margin=margin, kind=kind, count=count)
    if columns not in mesh.axis_names or rows not in mesh.axis_names:
        total = sum_of(x, classes, labels, share, axes=None)
    else:
        split = (jax.P(rows), jax.P(columns), jax.P(rows))

        @functools.partial(jax.shard_map, in_specs=(*split, jax.P()), out_specs=jax.P())
        def local(x, classes, labels, key):
            drawn = None if share is None else Share(share.of, key)
            return jax.lax.psum(sum_of(x, classes, labels, drawn, axes=axes), rows)

        total = local(x, classes, labels, None if share is None else share.key)
    return total / jnp.maximum((labels >= 0).sum(), 1)


def _sum_of(x, classes, labels, share, *, scale, margin, kind, count, axes) -> Float[Array, ""]:
    """Over the local rows, with the sums of all devices' classes."""
    first = 0 if axes is None else jax.lax.axis_index(axes[1]) * classes.shape[0]
    number = first + jnp.arange(classes.shape[0])
    if share is not None and share.of < 1:
        everyone = labels if axes is None else jax.lax.all_gather(labels, axes[0], tiled=True)
        chosen = _drawn(number, labels=everyone, share=share, groups=_groups(classes, axes))
        number, classes = number[chosen], classes[chosen]
    cosine = jnp.einsum("nd,cd->nc", unit(x), unit(classes), preferred_element_type=jnp.float32)
    own = labels[:, None] == number[None]
    logits = jnp.where(number[None] < count, scale * jnp.where(own, _with_margin(cosine, margin, kind), cosine), LOWEST)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    top = top if axes is None else jax.lax.pmax(top, axes[1])
    sums = jnp.stack([jnp.exp(logits - top[:, None]).sum(1), jnp.where(own, logits, 0.0).sum(1)])
    mass, at_label = sums if axes is None else jax.lax.psum(sums, axes[1])
    loss = jnp.where(labels < count, top + jnp.log(mass) - at_label, jnp.nan)
    return jnp.where(labels >= 0, loss, 0.0).sum()


def _with_margin(cosine: Float[Array, "n c"], margin: float, kind: Kind) -> Float[Array, "n c"]:
    if kind == "cosface":
        return cosine - margin
    # cos(angle + margin); past the angle at which that would turn back up, a line goes on down from there.
    sine = jnp.sqrt(jnp.maximum(1 - jnp.square(cosine), 1e-7))
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    return jnp.where(cosine > math.cos(math.pi - margin), turned, cosine - 1 - math.cos(math.pi - margin))


def _drawn(number: Int[Array, "c"], *, labels: Int[Array, "n"], share: Share, groups: int) -> Int[Array, "k"]:
    """Where the classes of a step stand: those of the batch, and others by chance up to the share.

    Of each group as many as the share, but room for every label of the batch: none is ever left out.
    """
    size = number.shape[0] // groups
    keep = min(size, max(math.ceil(share.of * size), labels.shape[0]))
    luck = jax.vmap(lambda n: jax.random.uniform(jax.random.fold_in(share.key, n)))(number)
    place = jnp.where(labels >= number[0], labels - number[0], number.shape[0])  # below zero would count from the end
    sought = jnp.zeros(number.shape, bool).at[place].set(True, mode="drop")
    _, places = jax.lax.top_k(jnp.where(sought, 2.0, luck).reshape(groups, size), keep)
    return (places + size * jnp.arange(groups)[:, None]).reshape(-1)


def _groups(classes: Float[Array, "c d"], axes: tuple[str, str] | None) -> int:
    """How many of the groups are here."""
    devices = 1 if axes is None else jax.lax.axis_size(axes[1])
    if GROUPS % devices or classes.shape[0] % (GROUPS // devices):
        raise ValueError(
            f"a share of the classes needs a matrix whose rows divide by {GROUPS}, and at most so many devices; "
            f"here {devices} devices hold {classes.shape[0]} rows each"
        )
    return GROUPS // devices
