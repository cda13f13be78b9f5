"""The activation unit in blocks against its tower on one array [e, v, e - v, e ⊙ v]: values, gradients, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers import activation_unit, position_blocks
from modules.layers.activations import Dice
from modules.layers.mlp import MLP
from modules.layers.target_attention import TargetAttention

WIDTH = 3
DICE = MLP(widths=(6, 5), activation="dice")
TOWERS = {
    "dice": DICE,
    "batch norm": MLP(widths=(6, 5), activation="prelu", norm="batch"),
    "batch norm and dice": MLP(widths=(6, 5), activation="dice", norm="batch"),
    "layer norm": MLP(widths=(6,), activation="relu", norm="layer"),
    "linear": MLP(widths=()),
}


def arrays(*, rows: int = 7, users: int = 7, length: int = 10):
    rng = np.random.default_rng(0)
    history = rng.normal(size=(users, length, WIDTH)) + 3
    lengths = np.resize([0, length, 3, 1], users) if users > 1 else np.array([length - 2])
    mask = np.arange(length)[None, :] < lengths[:, None]
    return (
        jnp.asarray(history, jnp.float32),
        jnp.asarray(rng.normal(size=(rows, WIDTH)), jnp.float32),
        jnp.asarray(mask),
    )


def attention(mlp: MLP) -> TargetAttention:
    made = TargetAttention(WIDTH, mlp=mlp, rngs=nnx.Rngs(0))
    for layer in made.mlp.hidden:  # as training leaves them
        if layer.activation.state is not None:
            layer.activation.state.alpha[...] = jnp.linspace(-0.5, 1.5, layer.activation.state.alpha.shape[0])
    return made


def as_one_array(made: TargetAttention, history, target, mask, rngs=None):
    v = jnp.broadcast_to(target[:, None, :], (target.shape[0], *history.shape[1:]))
    e = jnp.broadcast_to(history, v.shape)
    whole = jnp.broadcast_to(mask, e.shape[:2])
    unit = jnp.concatenate([e, v, e - v, e * v], axis=-1)
    return jnp.where(whole, made.mlp(unit, mask=whole, rngs=rngs)[..., 0], 0)


def in_blocks(made: TargetAttention, history, target, mask, rngs=None):
    return made.weights(history, target=target, mask=mask, rngs=rngs)


def run(way, made: TargetAttention, history, target, mask, *, train: bool):
    """Weights, gradients of a loss of theirs, and statistics after."""
    graph, params, rest = nnx.split(made, nnx.Param, ...)

    def loss(params, history, target):
        model = nnx.merge(graph, params, jax.tree.map(lambda x: x, rest))
        weights = way(model, history, target, mask, nnx.Rngs(0) if train else None)
        slopes = jnp.cos(jnp.arange(weights.size, dtype=jnp.float32)).reshape(weights.shape)
        return (slopes * weights).sum(), (weights, nnx.split(model, nnx.Param, ...)[2])

    gradients, (weights, after) = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(params, history, target)
    return jax.tree.map(np.asarray, (weights, gradients, after))


def assert_same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max(initial=0)))


# Ten positions a row: all rows in one block, two rows to a block, halves of a row, uneven stretches of a row.
# The first layer's outputs are kept from pass to pass, or each pass computes them anew.
@pytest.mark.parametrize(
    ("tower", "positions", "kept"),
    [("dice", 1000, 1), ("dice", 5, 0), *((name, *how) for name in TOWERS for how in ((20, 1), (4, 0)))],
)
def test_blocks_change_nothing(tower, positions, kept, monkeypatch):
    monkeypatch.setattr(position_blocks, "POSITIONS", positions)
    monkeypatch.setattr(activation_unit, "KEPT_BYTES", kept << 20)
    for train in (True, False):
        wanted = run(as_one_array, attention(TOWERS[tower]), *arrays(), train=train)
        assert_same(run(in_blocks, attention(TOWERS[tower]), *arrays(), train=train), wanted)


def test_one_block_has_no_loop_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(position_blocks, "POSITIONS", 20)
    made = attention(DICE)
    history, target, mask = arrays()

    def compiled():
        """Anew at each call, since a trace is kept by its function."""
        return jax.jit(lambda h: made.weights(h, target=target, mask=mask)).trace(history)

    wanted = compiled()
    with position_blocks.one_block():
        found = compiled()
    assert "scan" in str(wanted.jaxpr)
    assert "scan" not in str(found.jaxpr)
    assert "scan" in str(compiled().jaxpr), "blocks are one beyond the export"
    a, b = (traced.lower().compile()(history) for traced in (found, wanted))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("positions", "kept"), [(20, 1), (4, 1), (4, 0)])
def test_a_request_shares_its_history(positions, kept, monkeypatch):
    monkeypatch.setattr(position_blocks, "POSITIONS", positions)
    monkeypatch.setattr(activation_unit, "KEPT_BYTES", kept << 20)
    for train in (True, False):
        history, target, mask = arrays(users=1)
        wanted = run(as_one_array, attention(DICE), history, target, mask, train=train)
        assert_same(run(in_blocks, attention(DICE), history, target, mask, train=train), wanted)
    made = attention(DICE)
    tiled = made(jnp.tile(history, (7, 1, 1)), target=target, mask=jnp.tile(mask, (7, 1)))
    np.testing.assert_allclose(made(history, target=target, mask=mask), tiled, rtol=1e-5, atol=1e-5)


def test_dropout_is_the_same_in_every_pass(monkeypatch):
    """The gradient belongs to the very weights that were dropped: by differences in one direction."""
    monkeypatch.setattr(position_blocks, "POSITIONS", 20)
    made = attention(MLP(widths=(8, 8), activation="dice", dropout=0.5))
    history, target, mask = arrays()
    graph, state = nnx.split(made)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=history.shape), jnp.float32)

    def loss(step):
        fresh = jax.tree.map(lambda x: x, state)
        model = nnx.merge(graph, fresh)
        return jnp.square(model(history + step * direction, target=target, mask=mask, rngs=nnx.Rngs(0))).mean()

    slope = float(jax.grad(loss)(0.0))
    difference = float((loss(1e-2) - loss(-1e-2)) / 2e-2)
    assert slope == pytest.approx(difference, rel=2e-2)


def test_memory_does_not_grow_with_rows_or_length(monkeypatch):
    """Beyond arrays of the size of the history and of the weights, and what may be kept."""
    monkeypatch.setattr(position_blocks, "POSITIONS", 256)
    monkeypatch.setattr(activation_unit, "KEPT_BYTES", 1 << 16)
    graph, state = nnx.split(TargetAttention(WIDTH, mlp=MLP(widths=(80, 40), activation="dice"), rngs=nnx.Rngs(0)))

    def scratch(rows, length):
        def loss(state, history, target, mask):
            model = nnx.merge(graph, state)
            return jnp.square(model(history, target=target, mask=mask, rngs=nnx.Rngs(0))).sum()

        history, target, mask = arrays(rows=rows, users=rows, length=length)
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(state, history, target, mask).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, long, wide = scratch(4, 256), scratch(4, 4096), scratch(64, 256)
    activations = 4 * 4096 * 80 * 4
    assert max(long, wide) < small + activations / 2


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_of_dice_is_that_of_its_formula(masked):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(9, 4)) * 2 + 1, jnp.float32)
    mask = jnp.asarray(rng.random(9) < 0.7) if masked else None
    weight = jnp.ones(9) if mask is None else mask.astype(jnp.float32)

    def plain(x, alpha):
        mean = (weight @ x / weight.sum())[None, :]
        var = (weight @ jnp.square(x - mean) / weight.sum())[None, :]
        p = 1 / (1 + jnp.exp(-(x - mean) / jnp.sqrt(var + 1e-8)))
        return p * x + alpha[None, :] * (1 - p) * x

    def ours(x, alpha):
        dice = Dice(4)
        dice.alpha[...] = alpha
        return dice(x, mask=mask, rngs=nnx.Rngs(0))

    alpha = jnp.asarray([0.0, 0.3, 1.0, -2.0])
    slopes = jnp.asarray(rng.normal(size=(9, 4)), jnp.float32)
    found, wanted = (
        jax.grad(lambda x, alpha, way=way: (slopes * way(x, alpha)).sum(), argnums=(0, 1))(x, alpha)
        for way in (ours, plain)
    )
    assert_same(found, wanted)
