"""Where the thing in a picture is: what differs from the colour that the picture ends in."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

NEAR = 0.08  # difference to the border, of 1, that is still background
SPREAD = 0.4  # standard deviation of the trust in the middle, of half a side
TAIL = 0.02  # share of what differs that may lie outside on each side
MARGIN = 0.02  # of the sides, added all round


def core_boxes(images: UInt8[Array, "b h w c"]) -> Float[Array, "b 4"]:
    """Top, bottom, left and right of the core, as shares of the sides; the whole picture if nothing stands out.

    s = relu(max_c |x - m_c| - NEAR) exp(-(u² + v²) / 2 SPREAD²), where m is the median of the outermost pixels and
    (u, v) the place from the middle; each side of the box cuts off TAIL of Σ s.
    """
    x = images.astype(jnp.float32) / 255
    height, width = x.shape[1:3]
    border = jnp.concatenate([x[:, 0], x[:, -1], x[:, 1:-1, 0], x[:, 1:-1, -1]], axis=1)
    apart = jnp.abs(x - jnp.median(border, axis=1)[:, None, None]).max(axis=-1)
    trust = _bell(height)[None, :, None] * _bell(width)[None, None, :]
    salient = jax.nn.relu(apart - NEAR) * trust
    edges = [edge for axis in (2, 1) for edge in _bounds(salient.sum(axis=axis))]
    box = jnp.stack(edges, axis=1)
    whole = jnp.asarray([0.0, 1.0, 0.0, 1.0])[None]
    return jnp.where(salient.sum(axis=(1, 2))[:, None] > 0, box, whole)


def crop(images: UInt8[Array, "b h w c"], *, boxes: Float[Array, "b 4"]) -> UInt8[Array, "b h w c"]:
    """What lies in the boxes, drawn to the size of the pictures, between pixels in straight lines."""
    height, width = images.shape[1:3]
    x = images.astype(jnp.float32)
    x = jnp.einsum("bhwc,bkh->bkwc", x, _between(boxes[:, 0], boxes[:, 1], size=height))
    x = jnp.einsum("bkwc,blw->bklc", x, _between(boxes[:, 2], boxes[:, 3], size=width))
    return jnp.round(x).astype(jnp.uint8)


def _bell(size: int) -> Float[Array, " n"]:
    at = (jnp.arange(size) + 0.5) / size * 2 - 1
    return jnp.exp(-jnp.square(at / SPREAD) / 2)


def _bounds(mass: Float[Array, "b n"]) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """First and last place of a line between which all but TAIL at either end lies, with a margin."""
    size = mass.shape[1]
    share = jnp.cumsum(mass, axis=1) / jnp.maximum(mass.sum(axis=1, keepdims=True), 1e-9)
    first = jnp.argmax(share > TAIL, axis=1)
    last = jnp.argmax(share >= 1 - TAIL, axis=1) + 1
    return jnp.maximum(first / size - MARGIN, 0.0), jnp.minimum(last / size + MARGIN, 1.0)


def _between(low: Float[Array, "b"], high: Float[Array, "b"], *, size: int) -> Float[Array, "b k n"]:
    """Weights of the pixels of a line at the middles of `size` equal parts of [low, high]."""
    step = (jnp.arange(size) + 0.5) / size
    at = (low[:, None] + (high - low)[:, None] * step[None]) * size - 0.5
    at = jnp.clip(at, 0, size - 1)
    return jax.nn.relu(1 - jnp.abs(at[:, :, None] - jnp.arange(size)[None, None]))
