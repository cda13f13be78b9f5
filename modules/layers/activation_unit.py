"""A tower over [e, v, e - v, e ⊙ v] for every behaviour e and its target v, in blocks of memory of one size.

The first layer splits: W [e, v, e - v, e ⊙ v] = (W₁ + W₃ + diag(v) W₄) e + (W₂ - W₃) v, so that a target costs one
kernel and one vector and no array is wider than a behaviour. The rest is computed in blocks of positions.

Batch norm and Dice ask for moments over all positions. These come from passes over the blocks, one per such layer,
each computing anew what stands below it. The gradient goes the same way back, from the topmost such layer down: a
pass for the gradients of its mean and variance, and a last pass, in which all of these are known, for the rest. So
blocks change the order of sums and nothing else. Where the first layer's outputs take little memory they are kept from
pass to pass, since most of a pass goes into them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.layers.mlp import MLPLayers
from modules.layers.norm import BatchNorm
from modules.layers.position_blocks import Block, Blocks

Moments = tuple[jax.Array, jax.Array]
"""Mean and variance of each channel."""
Tree = Any

KEPT_BYTES = 64 << 20
"""Memory that the first layer's outputs may take between the passes."""


def activation_scores(
    mlp: MLPLayers,
    *,
    history: Float[Array, "u t d"],
    target: Float[Array, "b d"],
    mask: Bool[Array, "u t"],
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "b t"]:
    """The one output of `mlp` at every position, 0 outside of the mask; u is b, or 1 in a request.

    In training the running statistics of its layers move on.
    """
    graph, theta = nnx.split(mlp)
    layers = _stateful(mlp)
    if rngs is None:
        moments = tuple((layer.mean[...], layer.var[...]) for layer in layers)
        return _scores(graph, theta, history, target, mask, None, moments)[0]
    dropout = any(block.dropout.rate for block in mlp.hidden)
    key = jax.random.key_data(rngs.dropout()) if dropout else None
    scores, moments = _scores(graph, theta, history, target, mask, key, None)
    for layer, new in zip(layers, moments, strict=True):
        keep = layer.momentum
        for kept, value in zip((layer.mean, layer.var), new, strict=True):
            kept[...] = jax.lax.stop_gradient(keep * kept[...] + (1 - keep) * value)
    return scores


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(graph, theta: Tree, history, target, mask, key, given: tuple[Moments, ...] | None):
    """Scores, and the moments of the layers that ask for them."""
    return _forward(graph, theta, history, target, mask, key, given)[0]


def _forward(graph, theta: Tree, history, target, mask, key, given):
    blocks, first = Blocks(history, target=target, mask=mask), None
    if given is None and _fits(graph, theta, history, target):
        first = blocks.map(lambda block, number: _first(graph, theta, block["history"], block["target"]))
        blocks.attach("first", first)
    moments = _moments(graph, theta, blocks, key) if given is None else given

    def scores(block: Block, number):
        return _chain(graph, theta, block, moments=moments, key=_fold(key, number))[0]

    found = jnp.where(mask, blocks.join(blocks.map(scores)), 0)
    return (found, moments), (theta, history, target, mask, key, moments, first, given is None)


def _backward(graph, saved, cotangents):
    theta, history, target, mask, key, moments, first, trained = saved
    blocks = Blocks(history, target=target, mask=mask, scores=jnp.where(mask, cotangents[0], 0))
    if first is not None:
        blocks.attach("first", first)
    count = jnp.maximum(blocks.weight, 1)
    slopes: list[Moments] = []  # gradients of the moments, from the top of the tower down

    def linear(theta, block: Block, moments, *, number):
        """A scalar of the block whose gradient is the loss's, as far as the slopes are known."""
        scores, points = _chain(graph, theta, block, moments=moments, key=_fold(key, number))
        total = (scores * block["scores"]).sum()
        fixed = jax.lax.stop_gradient(moments)
        for (mean, _), point, (d_mean, d_var) in zip(reversed(fixed), reversed(points), slopes, strict=False):
            x = point.astype(jnp.float32)
            rows = x * _row(d_mean / count) + jnp.square(x - _row(mean)) * _row(d_var / count)
            total += jnp.where(block["mask"][..., None], rows, 0).sum()
        return total

    if trained:
        for k in reversed(range(len(moments))):

            def slope(block: Block, number, k=k):
                def of(own: Moments):
                    return linear(theta, block, (*moments[:k], own, *moments[k + 1 :]), number=number)

                return jax.grad(of)(moments[k])

            slopes.append(blocks.sum(slope))

    def rest(block: Block, number):
        x, through = jax.vjp(partial(_first, graph), theta, block["history"], block["target"])

        def above(theta, x):
            return linear(theta, {**block, "first": x}, moments, number=number)

        d_above, d_x = jax.grad(above, argnums=(0, 1))(theta, block.get("first", x))
        d_theta, d_e, d_v = through(d_x)
        d_theta = jax.tree.map(jnp.add, d_theta, d_above)
        return ((d_theta, blocks.of_shared(d_e, number)), d_v) if blocks.shared else ((d_theta, ()), (d_e, d_v))

    (d_theta, summed), stacked = blocks.reduce(rest)
    if blocks.shared:
        return d_theta, blocks.join_shared(summed), blocks.join_rows(stacked), None, None, None
    return d_theta, blocks.join(stacked[0]), blocks.join_rows(stacked[1]), None, None, None


_scores.defvjp(_forward, _backward)


def _moments(graph, theta: Tree, blocks: Blocks, key) -> tuple[Moments, ...]:
    """By Chan's formula from those of the blocks, which loses no digits to a mean far from 0."""
    found: list[Moments] = []
    for k in range(len(_stateful(nnx.merge(graph, theta)))):

        def of_block(block: Block, number, k=k):
            points = _chain(graph, theta, block, moments=tuple(found), key=_fold(key, number))[1]
            x = points[k].astype(jnp.float32)
            weight = jnp.broadcast_to(block["mask"], x.shape[:2]).astype(jnp.float32)
            total = weight.sum()
            weight = weight / jnp.maximum(total, 1.0)
            mean = jnp.einsum("bt,bth->h", weight, x)
            return total, mean, jnp.einsum("bt,bth->h", weight, jnp.square(x - _row(mean)))

        weight, mean, var = blocks.map(of_block)
        weight = (weight / jnp.maximum(weight.sum(), 1.0))[:, None]
        whole = (weight * mean).sum(0)
        found.append((whole, (weight * (var + jnp.square(mean - whole[None, :]))).sum(0)))
    return tuple(found)


def _chain(graph, theta: Tree, block: Block, *, moments: tuple[Moments, ...], key):
    """Scores of a block, and the inputs of the layers that ask for moments, as far up as `moments` are known."""
    mlp: MLPLayers = nnx.merge(graph, theta)
    points: list[jax.Array] = []
    x = block["first"] if "first" in block else _first(graph, theta, block["history"], block["target"])
    for number, layer in enumerate(mlp.hidden):
        x = layer.linear(x) if number else x
        for part in (layer.norm, layer.activation.state):
            if _asks(part):
                points.append(x)
                if len(points) > len(moments):
                    return None, points
                x = _normalised(part, x, moments[len(points) - 1])
            elif part is not None:
                x = part(x)
        if layer.activation.state is None:
            x = layer.activation(x)
        if key is not None:
            x = layer.dropout(x, rngs=nnx.Rngs(jax.random.fold_in(jax.random.wrap_key_data(key), number)))
    x = mlp.out(x) if mlp.hidden else x
    return x[..., 0], points


def _first(graph, theta: Tree, e: Float[Array, "u t d"], v: Float[Array, "b d"]) -> Float[Array, "b t h"]:
    """The outputs of the first layer."""
    linear = _lowest(nnx.merge(graph, theta))
    of_e, of_v, of_difference, of_product = jnp.split(linear.kernel[...], 4)
    if e.shape[0] == 1:  # of a request: the kernels of its behaviours side by side serve all targets
        kernels = (of_v - of_difference)[:, None] + e[0].T[:, :, None] * of_product[:, None]
        own = e[0] @ (of_e + of_difference) + linear.bias[...][None, :]
        return jnp.einsum("bd,dth->bth", v, kernels) + own[None]
    own = v @ (of_v - of_difference) + linear.bias[...][None, :]
    kernel = (of_e + of_difference)[None] + v[:, :, None] * of_product[None]
    return jnp.einsum("btd,bdh->bth", e, kernel) + own[:, None, :]


def _lowest(mlp: MLPLayers) -> Any:
    return mlp.hidden[0].linear if mlp.hidden else mlp.out


def _fits(graph, theta: Tree, history: Float[Array, "u t d"], target: Float[Array, "b d"]) -> bool:
    """Whether the first layer's outputs may be kept, in a training step, whose shapes are all known."""
    width = _lowest(nnx.merge(graph, theta)).kernel.shape[-1]
    return target.shape[0] * history.shape[1] * width * history.dtype.itemsize <= KEPT_BYTES


def _asks(part: nnx.Module | None) -> bool:
    return hasattr(part, "momentum")


def _stateful(mlp: MLPLayers) -> list[Any]:
    """The layers that ask for moments, in the order of the tower."""
    return [part for block in mlp.hidden for part in (block.norm, block.activation.state) if _asks(part)]


def _normalised(part: Any, x: Float[Array, "b t h"], moments: Moments) -> Float[Array, "b t h"]:
    mean, var = moments
    if isinstance(part, BatchNorm):
        factor = part.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + part.epsilon)
        out = (x.astype(jnp.float32) - _row(mean)) * _row(factor) + _row(part.bias[...].astype(jnp.float32))
        return out.astype(x.dtype)
    return part.at(x, mean=mean, var=var)


def _row(x: Float[Array, " h"]) -> Float[Array, "1 1 h"]:
    return x[None, None, :]


def _fold(key: jax.Array | None, number) -> jax.Array | None:
    return None if key is None else jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), number))
